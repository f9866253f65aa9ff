//! Fates and quarantine on SQLite.

use rusqlite::{OptionalExtension, Row as SqliteRow};
use uuid::Uuid;

use super::SqliteTxn;
use super::codec::{pack, unpack};
use crate::model::{ActionArgs, ActionId, ActionTag, Hlc};
use crate::store::{
    Fate, FateStore, Fated, LogStore, QuarantineKind, Quarantined, QuarantinedAction, StoreError, UNSENT,
};

const CONFIRMED: &str = "confirmed";
const CHANGED: &str = "changed";
const REJECTED: &str = "rejected";
const BY_SERVER: &str = "rejected_by_server";
const ON_REPLAY: &str = "rejected_on_replay";
const DROPPED: &str = "dropped";

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

fn read_fate(name: &str, reason: Option<String>) -> Result<Fate, StoreError> {
    match name {
        CONFIRMED => Ok(Fate::Confirmed),
        CHANGED => Ok(Fate::Changed { reason }),
        REJECTED => Ok(Fate::Rejected { reason: reason.unwrap_or_default() }),
        _ => Err(damaged("local_fates.fate")),
    }
}

/// From a row of `id, tag, kind, reason`.
fn read_quarantined(row: &SqliteRow<'_>) -> Result<Quarantined, StoreError> {
    Ok(Quarantined {
        id: ActionId::from_uuid(Uuid::from_bytes(row.get(0)?)),
        tag: ActionTag::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_quarantined_actions.tag"))?,
        kind: match row.get::<_, String>(2)?.as_str() {
            BY_SERVER => QuarantineKind::RejectedByServer,
            ON_REPLAY => QuarantineKind::RejectedOnReplay,
            DROPPED => QuarantineKind::Dropped,
            _ => return Err(damaged("local_quarantined_actions.kind")),
        },
        reason: row.get(3)?,
    })
}

impl FateStore for SqliteTxn<'_> {
    fn fate(&self, action: ActionId) -> Result<Option<Fate>, StoreError> {
        let stored: Option<(String, Option<String>)> = self
            .transaction
            .prepare_cached("SELECT fate, reason FROM local_fates WHERE action_id = ?")?
            .query_row([action.as_uuid().as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        stored.map(|(name, reason)| read_fate(&name, reason)).transpose()
    }

    fn put_fate(&self, action: ActionId, clock: Hlc, fate: &Fate) -> Result<(), StoreError> {
        let (name, reason) = match fate {
            Fate::Confirmed => (CONFIRMED, None),
            Fate::Changed { reason } => (CHANGED, reason.as_deref()),
            Fate::Rejected { reason } => (REJECTED, Some(reason.as_str())),
        };
        self.transaction
            .prepare_cached("INSERT OR REPLACE INTO local_fates (action_id, clock, fate, reason) VALUES (?, ?, ?, ?)")?
            .execute((action.as_uuid().as_bytes(), clock.packed(), name, reason))?;
        Ok(())
    }

    fn fates(&self, after: Option<(Hlc, ActionId)>, limit: usize) -> Result<Vec<Fated>, StoreError> {
        let (clock, id) =
            after.map_or((i64::MIN, Vec::new()), |(clock, id)| (clock.packed(), id.as_uuid().as_bytes().to_vec()));
        let mut statement = self.transaction.prepare_cached(
            "SELECT action_id, clock, fate, reason FROM local_fates WHERE (clock, action_id) > (?, ?) \
             ORDER BY clock, action_id LIMIT ?",
        )?;
        let mut rows = statement.query((clock, id, i64::try_from(limit).unwrap_or(UNSENT)))?;
        let mut fates = Vec::new();
        while let Some(row) = rows.next()? {
            fates.push(Fated {
                action_id: ActionId::from_uuid(Uuid::from_bytes(row.get(0)?)),
                clock: Hlc::from_packed(row.get(1)?),
                fate: read_fate(&row.get::<_, String>(2)?, row.get(3)?)?,
            });
        }
        Ok(fates)
    }

    fn prune_fates(&self, before: Hlc) -> Result<usize, StoreError> {
        Ok(self.transaction.prepare_cached("DELETE FROM local_fates WHERE clock < ?")?.execute([before.packed()])?)
    }

    fn quarantine(&self, action: ActionId, kind: QuarantineKind, reason: &str) -> Result<(), StoreError> {
        let kind = match kind {
            QuarantineKind::RejectedByServer => BY_SERVER,
            QuarantineKind::RejectedOnReplay => ON_REPLAY,
            QuarantineKind::Dropped => DROPPED,
        };
        let patches = self.record(action)?.map(|stored| stored.rows).unwrap_or_default();
        self.transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO local_quarantined_actions (id, clock, tag, args, kind, reason, patches) \
                 SELECT id, clock, tag, args, ?, ?, ? FROM action_records WHERE id = ?",
            )?
            .execute((kind, reason, pack(&patches), action.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError> {
        let mut statement = self
            .transaction
            .prepare_cached("SELECT id, tag, kind, reason FROM local_quarantined_actions ORDER BY clock, id")?;
        let mut rows = statement.query([])?;
        let mut quarantined = Vec::new();
        while let Some(row) = rows.next()? {
            quarantined.push(read_quarantined(row)?);
        }
        Ok(quarantined)
    }

    fn quarantined_count(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .transaction
            .prepare_cached("SELECT count(*) FROM local_quarantined_actions")?
            .query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    fn inspect_quarantined(&self, action: ActionId) -> Result<Option<QuarantinedAction>, StoreError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT id, tag, kind, reason, clock, args, patches FROM local_quarantined_actions WHERE id = ?",
        )?;
        let mut rows = statement.query([action.as_uuid().as_bytes()])?;
        let Some(row) = rows.next()? else { return Ok(None) };
        let args = ActionArgs::from_encoded(row.get(5)?).ok_or_else(|| damaged("local_quarantined_actions.args"))?;
        let patches: Vec<u8> = row.get(6)?;
        Ok(Some(QuarantinedAction {
            quarantined: read_quarantined(row)?,
            clock: Hlc::from_packed(row.get(4)?),
            args,
            patches: unpack(&patches, "local_quarantined_actions.patches")?,
        }))
    }

    fn discard_quarantined(&self, action: ActionId) -> Result<bool, StoreError> {
        let id = action.as_uuid().as_bytes();
        let discarded =
            self.transaction.prepare_cached("DELETE FROM local_quarantined_actions WHERE id = ?")?.execute([id])?;
        Ok(discarded > 0)
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
