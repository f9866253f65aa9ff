//! Application rows on SQLite: an action's statements, patches, undo.

use rusqlite::{CachedStatement, OptionalExtension, params_from_iter};

use super::SqliteTxn;
use super::capture::{DISPLACED, Mode};
use super::codec::{Bound, Image, check_storable, pack, read_rows, unpack};
use super::words::says;
use crate::model::{ActionId, AudienceKey, Effect, Operation, Patch, RowId, RowKey, TableName, Value};
use crate::store::{Displaced, Row, RowStore, Sql, SqlError, StoreError};

impl Sql for SqliteTxn<'_> {
    fn execute(&self, sql: &str, params: &[Value]) -> Result<usize, SqlError> {
        check_storable(params)?;
        Ok(self.action_statement(sql)?.execute(params_from_iter(params.iter().map(Bound)))?)
    }

    fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        read_rows(&mut *self.action_statement(sql)?, params)
    }
}

impl SqliteTxn<'_> {
    /// Actions have their own statements: the authorizer is asked when a statement is prepared, so one of the engine's
    /// with the same text must not be found in the cache.
    ///
    /// `OR ROLLBACK` would end the whole transaction, and with it what is not the action's; the authorizer is not asked.
    fn action_statement(&self, sql: &str) -> Result<CachedStatement<'_>, SqlError> {
        if says(sql, &["ROLLBACK"]) {
            let message = "actions may not ROLLBACK: return an error, or say OR ABORT; quote a column of that name";
            return Err(SqlError::Database { code: rusqlite::ffi::SQLITE_AUTH, message: message.to_owned() });
        }
        Ok(self.transaction.prepare_cached(&format!("/* action */ {sql}"))?)
    }

    pub(super) fn captured_where(&self, sql: &str, key: impl rusqlite::Params) -> Result<Vec<Captured>, StoreError> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(key)?;
        let mut captured = Vec::new();
        while let Some(row) = rows.next()? {
            let damaged = |what| StoreError::Damaged { what };
            let operation = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
            captured.push(Captured {
                row: RowKey {
                    table: TableName::new(row.get::<_, String>(0)?).map_err(|_| damaged("local_undo.table_name"))?,
                    row_id: RowId::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_undo.row_id"))?,
                },
                audience_key: AudienceKey::new(row.get::<_, String>(2)?)
                    .map_err(|_| damaged("local_undo.audience_key"))?,
                operation: Operation::parse(operation).ok_or_else(|| damaged("local_undo.operation"))?,
                image: unpack(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?, "local_undo.image")?,
            });
        }
        Ok(captured)
    }

    fn say(&self, sql: &str) -> Result<(), StoreError> {
        self.transaction.prepare_cached(sql)?.execute([])?;
        Ok(())
    }

    fn undone(&self, sql: &str) -> Result<Option<ActionId>, StoreError> {
        let id: Option<[u8; 16]> = self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0)).optional()?;
        Ok(id.map(|id| ActionId::from_uuid(uuid::Uuid::from_bytes(id))))
    }

    /// The effect that takes a captured one back.
    fn undo(&self, captured: &Captured) -> Result<(), StoreError> {
        let before = captured.image.0.clone();
        let effect = match captured.operation {
            Operation::Insert => Effect::Delete,
            Operation::Update => Effect::Update(before),
            Operation::Delete => Effect::Insert(before),
            Operation::Nothing => Effect::Nothing,
        };
        self.apply(&captured.row, &captured.audience_key, &effect)
    }
}

/// One row of `local_undo`.
pub(super) struct Captured {
    pub(super) row: RowKey,
    pub(super) audience_key: AudienceKey,
    operation: Operation,
    pub(super) image: Image,
}

impl RowStore for SqliteTxn<'_> {
    fn savepoint(&self) -> Result<(), StoreError> {
        // What came before it must outlive it.
        self.keep_clock()?;
        self.say("SAVEPOINT synchrotron")
    }

    fn release_savepoint(&self) -> Result<(), StoreError> {
        self.say("RELEASE synchrotron")
    }

    fn rollback_to_savepoint(&self) -> Result<(), StoreError> {
        self.displaced.set(None);
        self.status.take_back();
        self.say("ROLLBACK TO synchrotron")?;
        self.say("RELEASE synchrotron")
    }

    fn begin_action(&self, action: ActionId) -> Result<(), StoreError> {
        self.enforce_foreign_keys(true)?;
        self.capture.set(Mode::Action(action));
        Ok(())
    }

    fn end_action(&self) {
        self.capture.close();
    }

    fn apply_patch(&self, action: ActionId, patch: &[Patch]) -> Result<Vec<Displaced>, StoreError> {
        self.enforce_foreign_keys(false)?;
        self.capture.set(Mode::Patch(action));
        let mut displaced = Vec::new();
        let applied = patch
            .iter()
            .filter(|patch| self.capture.table(patch.table.as_str()).is_some())
            .try_for_each(|patch| self.place(&patch.row_key(), &patch.audience_key, &patch.effect, &mut displaced))
            .and_then(|()| self.put_back_rows());
        self.capture.close();
        applied?;
        let mut still = Vec::with_capacity(displaced.len());
        for displaced in displaced {
            if self.is_displaced(&displaced.row)? {
                still.push(displaced);
            }
        }
        Ok(still)
    }

    fn captured(&self, action: ActionId) -> Result<Vec<Patch>, StoreError> {
        let captured = self.captured_where(
            "SELECT table_name, row_id, audience_key, operation, image FROM local_undo WHERE action_id = ? ORDER BY seq",
            [action.as_uuid().as_bytes()],
        )?;
        Ok((0..)
            .zip(captured)
            .map(|(sequence, captured)| Patch {
                sequence,
                table: captured.row.table,
                row_id: captured.row.row_id,
                audience_key: captured.audience_key,
                effect: captured.operation.with_columns(captured.image.1),
            })
            .collect())
    }

    fn has_effects(&self, action: ActionId) -> Result<bool, StoreError> {
        let mut statement =
            self.transaction.prepare_cached("SELECT EXISTS (SELECT 1 FROM local_undo WHERE action_id = ?)")?;
        Ok(statement.query_row([action.as_uuid().as_bytes()], |row| row.get(0))?)
    }

    fn newest_undone(&self) -> Result<Option<ActionId>, StoreError> {
        self.undone("SELECT action_id FROM local_undo WHERE seq = (SELECT max(seq) FROM local_undo)")
    }

    fn oldest_undone(&self) -> Result<Option<ActionId>, StoreError> {
        self.undone("SELECT action_id FROM local_undo WHERE seq = (SELECT min(seq) FROM local_undo)")
    }

    fn check_file(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.transaction.prepare("PRAGMA integrity_check(20)")?;
        let found = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    fn rewind(&self, action: ActionId) -> Result<Vec<RowKey>, StoreError> {
        let first: Option<i64> = self
            .transaction
            .prepare_cached("SELECT min(seq) FROM local_undo WHERE action_id = ?")?
            .query_row([action.as_uuid().as_bytes()], |row| row.get(0))?;
        let Some(first) = first else { return Ok(Vec::new()) };
        let newest_first = self.captured_where(
            "SELECT table_name, row_id, audience_key, operation, image FROM local_undo WHERE seq >= ? ORDER BY seq DESC",
            [first],
        )?;
        self.enforce_foreign_keys(false)?;
        self.capture.set(Mode::Rewind);
        let undone = newest_first.iter().try_for_each(|captured| self.undo(captured));
        self.capture.close();
        self.displaced.set(None);
        undone?;
        self.transaction.prepare_cached("DELETE FROM local_undo WHERE seq >= ?")?.execute([first])?;
        let rows = newest_first.into_iter().map(|captured| captured.row);
        Ok(rows.filter(|row| row.table.as_str() != DISPLACED).collect())
    }
}

/// The stored form of an effect's columns.
pub(super) fn packed_columns(effect: &Effect) -> Option<Vec<u8>> {
    effect.columns().map(pack)
}
