//! Status, fates and quarantine on SQLite.

use rusqlite::OptionalExtension;
use uuid::Uuid;

use super::SqliteTxn;
use crate::model::{ActionId, ActionTag, AudienceKey, ClientId, Cursor, Cursors, Epoch, Hlc, UserId};
use crate::store::{Fate, QuarantineKind, Quarantined, StatusStore, StoreError};

const CONFIRMED: &str = "confirmed";
const CHANGED: &str = "changed";
const REJECTED: &str = "rejected";
const BY_SERVER: &str = "rejected_by_server";
const ON_REPLAY: &str = "rejected_on_replay";

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

impl SqliteTxn<'_> {
    fn status<T: rusqlite::types::FromSql>(&self, sql: &str) -> Result<T, StoreError> {
        Ok(self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
    }
}

impl StatusStore for SqliteTxn<'_> {
    fn client_id(&self) -> Result<ClientId, StoreError> {
        self.status("SELECT client_id FROM client_sync_status").map(|id| ClientId::from_uuid(Uuid::from_bytes(id)))
    }

    fn user_id(&self) -> Result<Option<UserId>, StoreError> {
        let user: Option<String> = self.status("SELECT user_id FROM client_sync_status")?;
        user.map(|user| UserId::new(user).map_err(|_| damaged("client_sync_status.user_id"))).transpose()
    }

    fn epoch(&self) -> Result<Option<Epoch>, StoreError> {
        let epoch: Option<[u8; 16]> = self.status("SELECT epoch FROM client_sync_status")?;
        Ok(epoch.map(|epoch| Epoch::from_uuid(Uuid::from_bytes(epoch))))
    }

    fn put_session(&self, user: &UserId, epoch: Epoch) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE client_sync_status SET user_id = ?, epoch = ?")?
            .execute((user.as_str(), epoch.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn clock(&self) -> Result<Hlc, StoreError> {
        self.status("SELECT clock FROM client_sync_status").map(Hlc::from_packed)
    }

    fn put_clock(&self, clock: Hlc) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE client_sync_status SET clock = max(clock, ?)")?
            .execute([clock.packed()])?;
        Ok(())
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
            .prepare_cached(
                "INSERT INTO client_audiences (audience_key, cursor) VALUES (?, ?) \
                 ON CONFLICT (audience_key) DO UPDATE SET cursor = max(cursor, excluded.cursor)",
            )?
            .execute((audience.as_str(), cursor.get()))?;
        Ok(())
    }

    fn fate(&self, action: ActionId) -> Result<Option<Fate>, StoreError> {
        let stored: Option<(String, Option<String>)> = self
            .transaction
            .prepare_cached("SELECT fate, reason FROM local_fates WHERE action_id = ?")?
            .query_row([action.as_uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        stored
            .map(|(fate, reason)| match fate.as_str() {
                CONFIRMED => Ok(Fate::Confirmed),
                CHANGED => Ok(Fate::Changed { reason }),
                REJECTED => Ok(Fate::Rejected { reason: reason.unwrap_or_default() }),
                _ => Err(damaged("local_fates.fate")),
            })
            .transpose()
    }

    fn put_fate(&self, action: ActionId, fate: &Fate) -> Result<(), StoreError> {
        let (name, reason) = match fate {
            Fate::Confirmed => (CONFIRMED, None),
            Fate::Changed { reason } => (CHANGED, reason.as_deref()),
            Fate::Rejected { reason } => (REJECTED, Some(reason.as_str())),
        };
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO local_fates (action_id, fate, reason) VALUES (?, ?, ?)")?
            .execute((action.as_uuid().as_bytes(), name, reason))?;
        Ok(())
    }

    fn quarantine(&self, action: ActionId, kind: QuarantineKind, reason: &str) -> Result<(), StoreError> {
        let kind = match kind {
            QuarantineKind::RejectedByServer => BY_SERVER,
            QuarantineKind::RejectedOnReplay => ON_REPLAY,
        };
        self.transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO local_quarantined_actions (id, clock, tag, args, kind, reason) \
                 SELECT id, clock, tag, args, ?, ? FROM action_records WHERE id = ?",
            )?
            .execute((kind, reason, action.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT id, tag, kind, reason FROM local_quarantined_actions ORDER BY clock, id")?;
        let mut rows = statement.query([])?;
        let mut quarantined = Vec::new();
        while let Some(row) = rows.next()? {
            quarantined.push(Quarantined {
                id: ActionId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                tag: ActionTag::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_quarantined_actions.tag"))?,
                kind: match row.get::<_, String>(2)?.as_str() {
                    BY_SERVER => QuarantineKind::RejectedByServer,
                    ON_REPLAY => QuarantineKind::RejectedOnReplay,
                    _ => return Err(damaged("local_quarantined_actions.kind")),
                },
                reason: row.get(3)?,
            });
        }
        Ok(quarantined)
    }

    fn refuse_correction(&self, id: ActionId) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("INSERT OR IGNORE INTO local_refused_corrections (id) VALUES (?)")?
            .execute([id.as_uuid().as_bytes()])?;
        Ok(())
    }

    fn is_refused(&self, id: ActionId) -> Result<bool, StoreError> {
        let mut statement =
            self.transaction.prepare_cached("SELECT EXISTS (SELECT 1 FROM local_refused_corrections WHERE id = ?)")?;
        Ok(statement.query_row([id.as_uuid().as_bytes()], |row| row.get(0))?)
    }
}
