//! Status on SQLite.

use uuid::Uuid;

use super::SqliteTxn;
use crate::model::{AudienceKey, ClientId, Cursor, Cursors, Epoch, Hlc, TableName, UserId};
use crate::store::{StatusStore, StoreError};

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

impl SqliteTxn<'_> {
    fn status<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, StoreError> {
        Ok(self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }

    fn put_status(&self, sql: &str, params: impl rusqlite::Params) -> Result<(), StoreError> {
        self.transaction.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}

impl StatusStore for SqliteTxn<'_> {
    fn client_id(&self) -> Result<ClientId, StoreError> {
        self.status("SELECT client_id FROM client_sync_status").map(|id| ClientId::from_uuid(Uuid::from_bytes(id)))
    }

    fn put_client_id(&self, client_id: ClientId) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET client_id = ?", [client_id.as_uuid().as_bytes()])
    }

    fn user_id(&self) -> Result<Option<UserId>, StoreError> {
        let user: Option<String> = self.status("SELECT user_id FROM client_sync_status")?;
        user.map(|user| UserId::new(user).map_err(|_| damaged("client_sync_status.user_id"))).transpose()
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        let epoch: Option<[u8; 16]> = self.status("SELECT epoch FROM client_sync_status")?;
        Ok(epoch.map(|epoch| Epoch::from_uuid(Uuid::from_bytes(epoch))))
    }

    fn erase_user(&self, client_id: ClientId) -> Result<Vec<TableName>, StoreError> {
        let emptied = self.empty_tracked_tables()?;
        self.transaction.execute_batch(
            "DELETE FROM local_undo; DELETE FROM action_modified_rows; DELETE FROM action_records; \
             DELETE FROM local_fates; DELETE FROM local_quarantined_actions; DELETE FROM local_refused_corrections; \
             DELETE FROM local_snapshot_chunks; DELETE FROM local_snapshot; DELETE FROM client_audiences; \
             UPDATE client_sync_status SET user_id = NULL, epoch = NULL, generation = generation + 1;",
        )?;
        self.put_client_id(client_id)?;
        Ok(emptied)
    }

    fn put_session(&self, user: &UserId, epoch: Epoch) -> Result<(), StoreError> {
        let session = (user.as_str(), epoch.as_uuid().as_bytes());
        self.put_status("UPDATE client_sync_status SET user_id = ?, epoch = ?", session)
    }

    fn clock(&self) -> Result<Hlc, StoreError> {
        self.status("SELECT clock FROM client_sync_status").map(Hlc::from_packed)
    }

    fn put_clock(&self, clock: Hlc) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET clock = max(clock, ?)", [clock.packed()])
    }

    fn reset_clock(&self, clock: Hlc) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET clock = ?", [clock.packed()])
    }

    fn clock_offset_ms(&self) -> Result<i64, StoreError> {
        self.status("SELECT clock_offset FROM client_sync_status")
    }

    fn put_clock_offset_ms(&self, offset_ms: i64) -> Result<(), StoreError> {
        self.put_status("UPDATE client_sync_status SET clock_offset = ?", [offset_ms])
    }

    fn generation(&self) -> Result<i64, StoreError> {
        self.status("SELECT generation FROM client_sync_status")
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
        let moved = (cursor.get(), audience.as_str());
        self.put_status("UPDATE client_audiences SET cursor = max(cursor, ?) WHERE audience_key = ?", moved)
    }
}
