//! Status on SQLite.

use std::cell::{Cell, RefCell};

use uuid::Uuid;

use super::SqliteTxn;
use crate::model::{AudienceKey, ClientId, Cursor, Cursors, Epoch, Hlc, TableName, UserId};
use crate::store::{StatusStore, StoreError};

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

/// The one row of status as this transaction knows it.
#[derive(Debug, Default)]
pub(super) struct StatusCache {
    /// As it was read; `None` before, and after a change.
    row: RefCell<Option<Status>>,
    /// The clock moves with every record. It is kept once, by the commit.
    clock: Cell<Option<Hlc>>,
}

#[derive(Debug, Clone)]
struct Status {
    client_id: ClientId,
    user_id: Option<UserId>,
    epoch: Option<Epoch>,
    clock: Hlc,
    clock_offset_ms: i64,
    generation: i64,
}

impl StatusCache {
    /// The row may be another now.
    pub(super) fn forget(&self) {
        self.row.replace(None);
    }

    /// A savepoint is rolled back: what was not kept since is gone too.
    pub(super) fn take_back(&self) {
        self.clock.set(None);
        self.forget();
    }
}

impl SqliteTxn<'_> {
    fn status<T>(&self, read: impl FnOnce(&Status) -> T) -> Result<T, StoreError> {
        let mut cached = self.status.row.borrow_mut();
        let status = match &mut *cached {
            Some(status) => status,
            None => cached.insert(self.read_status()?),
        };
        Ok(read(status))
    }

    /// Nothing of one user is read or written for another one; after a sign-out it is nobody's.
    pub(super) fn check_owner(&self, user: &UserId) -> Result<(), StoreError> {
        match self.status(|status| status.user_id.clone())? {
            Some(owner) if owner != *user => Err(StoreError::ForeignUser { expected: owner, actual: user.clone() }),
            Some(_) | None => Ok(()),
        }
    }

    fn read_status(&self) -> Result<Status, StoreError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT client_id, user_id, epoch, clock, clock_offset, generation FROM client_sync_status",
        )?;
        let mut rows = statement.query([])?;
        let row = rows.next()?.ok_or_else(|| damaged("client_sync_status"))?;
        let user: Option<String> = row.get(1)?;
        Ok(Status {
            client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(0)?)),
            user_id: user.map(UserId::new).transpose().map_err(|_| damaged("client_sync_status.user_id"))?,
            epoch: row.get::<_, Option<[u8; 16]>>(2)?.map(|epoch| Epoch::from_uuid(Uuid::from_bytes(epoch))),
            clock: Hlc::from_packed(row.get(3)?),
            clock_offset_ms: row.get(4)?,
            generation: row.get(5)?,
        })
    }

    fn put_status(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.transaction.prepare_cached(sql)?.execute(params)?;
        self.status.forget();
        Ok(())
    }

    /// Writes where the clock has come to.
    pub(super) fn keep_clock(&self) -> Result<(), StoreError> {
        match self.status.clock.take() {
            Some(clock) => self.put_status("UPDATE client_sync_status SET clock = max(clock, ?)", [clock.packed()]),
            None => Ok(()),
        }
    }
}

impl StatusStore for SqliteTxn<'_> {
    fn client_id(&self) -> Result<ClientId, StoreError> {
        self.status(|status| status.client_id)
    }

    fn put_client_id(&self, client_id: ClientId) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET client_id = ?", [client_id.as_uuid().as_bytes()])
    }

    fn user_id(&self) -> Result<Option<UserId>, StoreError> {
        self.status(|status| status.user_id.clone())
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        self.status(|status| status.epoch)
    }

    fn erase_user(&self, client_id: ClientId) -> Result<Vec<TableName>, StoreError> {
        let emptied = self.empty_tracked_tables()?;
        self.transaction.execute_batch(
            "DELETE FROM local_undo; DELETE FROM action_modified_rows; DELETE FROM action_records; \
             DELETE FROM local_fates; DELETE FROM local_quarantined_actions; DELETE FROM local_refused_corrections; \
             DELETE FROM local_snapshot_chunks; DELETE FROM local_snapshot; DELETE FROM client_audiences; \
             DELETE FROM local_unfit; \
             UPDATE client_sync_status SET user_id = NULL, epoch = NULL, unfit_snapshot = 0, \
             generation = generation + 1;",
        )?;
        self.put_client_id(client_id)?;
        Ok(emptied)
    }

    fn put_session(&self, user: &UserId, epoch: Epoch) -> Result<(), StoreError> {
        let session = (user.as_str(), epoch.as_uuid().as_bytes());
        self.put_status("UPDATE client_sync_status SET user_id = ?, epoch = ?", session)
    }

    fn clock(&self) -> Result<Hlc, StoreError> {
        let moved = self.status.clock.get();
        self.status(|status| moved.map_or(status.clock, |moved| status.clock.max(moved)))
    }

    fn put_clock(&self, clock: Hlc) -> Result<(), StoreError> {
        if clock > self.clock()? {
            self.status.clock.set(Some(clock));
        }
        Ok(())
    }

    fn reset_clock(&self, clock: Hlc) -> Result<(), StoreError> {
        self.status.clock.set(None);
        self.put_status("UPDATE client_sync_status SET clock = ?", [clock.packed()])
    }

    fn clock_offset_ms(&self) -> Result<i64, StoreError> {
        self.status(|status| status.clock_offset_ms)
    }

    fn put_clock_offset_ms(&self, offset_ms: i64) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET clock_offset = ?", [offset_ms])
    }

    fn generation(&self) -> Result<i64, StoreError> {
        self.status(|status| status.generation)
    }

    fn next_generation(&self) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET generation = generation + 1", [])
    }

    fn cursors(&self) -> Result<Cursors, StoreError> {
        let mut statement = self.transaction.prepare_cached("SELECT audience_key, cursor FROM client_audiences")?;
        let mut rows = statement.query([])?;
        let mut cursors = Cursors::new();
        while let Some(row) = rows.next()? {
            let audience =
                AudienceKey::new(row.get::<_, String>(0)?).map_err(|_| damaged("client_audiences.audience_key"))?;
            cursors.insert(audience, Cursor::new(row.get(1)?));
        }
        Ok(cursors)
    }

    fn put_cursor(&self, audience: &AudienceKey, cursor: Cursor) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE client_audiences SET cursor = max(cursor, ?) WHERE audience_key = ?")?
            .execute((cursor.get(), audience.as_str()))?;
        Ok(())
    }
}
