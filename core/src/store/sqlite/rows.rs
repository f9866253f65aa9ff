//! Application rows on SQLite: an action's statements, patches, savepoints.

use rusqlite::{CachedStatement, params_from_iter};

use super::SqliteTxn;
use super::capture::Mode;
use super::codec::{Bound, check_storable, pack, read_rows};
use super::words::says;
use crate::model::{ActionId, Effect, Patch, RowKey, Value};
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

    fn say(&self, sql: &str) -> Result<(), StoreError> {
        self.transaction.prepare_cached(sql)?.execute([])?;
        Ok(())
    }
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
            .try_for_each(|patch| self.place(&patch.audience_row(), &patch.effect, &mut displaced))
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
                table: captured.row.row.table,
                row_id: captured.row.row.row_id,
                audience_key: captured.row.audience_key,
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
        self.action_of("SELECT action_id FROM local_undo WHERE seq = (SELECT max(seq) FROM local_undo)")
    }

    fn oldest_undone(&self) -> Result<Option<ActionId>, StoreError> {
        self.action_of("SELECT action_id FROM local_undo WHERE seq = (SELECT min(seq) FROM local_undo)")
    }

    fn check_file(&self) -> Result<Vec<String>, StoreError> {
        let mut statement = self.transaction.prepare("PRAGMA integrity_check(20)")?;
        let found = statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    fn rewind(&self, action: ActionId) -> Result<Vec<RowKey>, StoreError> {
        self.undo_from(action)
    }
}

/// The stored form of an effect's columns.
pub(super) fn packed_columns(effect: &Effect) -> Option<Vec<u8>> {
    effect.columns().map(pack)
}
