//! Application rows on SQLite: an action's statements, patches, undo.

use rusqlite::config::DbConfig;
use rusqlite::{CachedStatement, OptionalExtension, params_from_iter};

use super::SqliteTxn;
use super::capture::Mode;
use super::codec::{Bound, Image, check_storable, pack, read_rows, unpack};
use super::tables::TrackedTable;
use super::words::has_word;
use crate::action::quoted;
use crate::model::{ActionId, AudienceKey, Columns, Effect, Operation, Patch, RowId, RowKey, TableName, Value};
use crate::store::{Row, RowStore, Sql, SqlError, StoreError};

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
        if has_word(sql, "ROLLBACK") {
            let message = "actions may not ROLLBACK: return an error, or say OR ABORT; quote a column of that name";
            return Err(SqlError::Database { code: rusqlite::ffi::SQLITE_AUTH, message: message.to_owned() });
        }
        Ok(self.transaction.prepare_cached(&format!("/* action */ {sql}"))?)
    }

    /// Patches and undo may leave a reference that leads nowhere; an action's own statements may not. A user may see a
    /// row and not the one that it refers to: the server has checked that reference, here it cannot be checked.
    /// (`PRAGMA foreign_keys` does nothing within a transaction; this switch does, and prepares statements anew.)
    fn without_foreign_keys<T>(&self, step: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.transaction.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false)?;
        let done = step();
        self.transaction.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, true)?;
        done
    }

    fn apply_as(&self, action: ActionId, patch: &[Patch]) -> Result<(), StoreError> {
        self.capture.set(Mode::Action(action));
        let applied =
            patch.iter().try_for_each(|patch| self.apply(&patch.row_key(), &patch.audience_key, &patch.effect));
        self.capture.close();
        applied
    }

    fn run(&self, sql: &str, values: &[&Value]) -> Result<usize, StoreError> {
        check_storable(values.iter().copied())?;
        let values = params_from_iter(values.iter().map(|value| Bound(value)));
        Ok(self.transaction.prepare_cached(sql)?.execute(values)?)
    }

    fn tracked(&self, key: &RowKey) -> Result<std::sync::Arc<TrackedTable>, StoreError> {
        self.capture.table(key.table.as_str()).ok_or_else(|| StoreError::UntrackedTable { row: key.clone() })
    }

    pub(super) fn apply(&self, key: &RowKey, audience: &AudienceKey, effect: &Effect) -> Result<(), StoreError> {
        let table = self.tracked(key)?;
        for column in effect.columns().into_iter().flat_map(Columns::keys) {
            if !table.columns.contains_key(column) {
                return Err(StoreError::UnknownColumn { row: key.clone(), column: column.clone() });
            }
        }
        let id = Value::from(&key.row_id);
        match effect {
            Effect::Insert(columns) => self.set_row(&table, &id, &Value::from(audience), columns),
            Effect::Update(columns) => self.update_row(&table, &id, columns),
            Effect::Delete => {
                self.run(&format!("DELETE FROM {} WHERE \"id\" = ?", quoted(&table.name)), &[&id]).map(drop)
            }
            Effect::Nothing => Ok(()),
        }
    }

    fn set_row(&self, table: &TrackedTable, id: &Value, audience: &Value, columns: &Columns) -> Result<(), StoreError> {
        let mut names = vec![quoted("id")];
        let mut values = vec![id];
        if !table.audience_is_generated {
            names.push(quoted("audience_key"));
            values.push(audience);
        }
        names.extend(columns.keys().map(|column| quoted(column)));
        values.extend(columns.values());
        let sets: Vec<String> = names[1..].iter().map(|name| format!("{name} = excluded.{name}")).collect();
        let conflict = if sets.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", sets.join(", ")) };
        let sql = format!(
            "INSERT INTO {} ({}) VALUES (?{}) ON CONFLICT (\"id\") DO {conflict}",
            quoted(&table.name),
            names.join(", "),
            ", ?".repeat(names.len() - 1),
        );
        self.run(&sql, &values).map(drop)
    }

    fn update_row(&self, table: &TrackedTable, id: &Value, columns: &Columns) -> Result<(), StoreError> {
        if columns.is_empty() {
            return Ok(());
        }
        let sets: Vec<String> = columns.keys().map(|column| format!("{} = ?", quoted(column))).collect();
        let sql = format!("UPDATE {} SET {} WHERE \"id\" = ?", quoted(&table.name), sets.join(", "));
        let values: Vec<&Value> = columns.values().chain(std::iter::once(id)).collect();
        self.run(&sql, &values).map(drop)
    }

    fn captured_where(&self, sql: &str, key: impl rusqlite::Params) -> Result<Vec<Captured>, StoreError> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(key)?;
        let mut captured = Vec::new();
        while let Some(row) = rows.next()? {
            let damaged = |what| StoreError::Damaged { what };
            let operation: String = row.get(3)?;
            captured.push(Captured {
                row: RowKey {
                    table: TableName::new(row.get::<_, String>(0)?).map_err(|_| damaged("local_undo.table_name"))?,
                    row_id: RowId::new(row.get::<_, String>(1)?).map_err(|_| damaged("local_undo.row_id"))?,
                },
                audience_key: AudienceKey::new(row.get::<_, String>(2)?)
                    .map_err(|_| damaged("local_undo.audience_key"))?,
                operation: Operation::parse(&operation).ok_or_else(|| damaged("local_undo.operation"))?,
                image: unpack(row.get_ref(4)?.as_blob().map_err(rusqlite::Error::from)?, "local_undo.image")?,
            });
        }
        Ok(captured)
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
struct Captured {
    row: RowKey,
    audience_key: AudienceKey,
    operation: Operation,
    image: Image,
}

impl RowStore for SqliteTxn<'_> {
    fn savepoint(&self) -> Result<(), StoreError> {
        Ok(self.transaction.execute_batch("SAVEPOINT synchrotron")?)
    }

    fn release_savepoint(&self) -> Result<(), StoreError> {
        Ok(self.transaction.execute_batch("RELEASE synchrotron")?)
    }

    fn rollback_to_savepoint(&self) -> Result<(), StoreError> {
        Ok(self.transaction.execute_batch("ROLLBACK TO synchrotron; RELEASE synchrotron")?)
    }

    fn begin_action(&self, action: ActionId) -> Result<(), StoreError> {
        self.capture.set(Mode::Action(action));
        Ok(())
    }

    fn end_action(&self) {
        self.capture.close();
    }

    fn apply_patch(&self, action: ActionId, patch: &[Patch]) -> Result<(), StoreError> {
        self.savepoint()?;
        let applied = match self.apply_as(action, patch) {
            Err(StoreError::Sql(error)) if breaks_a_reference(&error) => {
                self.rollback_to_savepoint()?;
                self.savepoint()?;
                self.without_foreign_keys(|| self.apply_as(action, patch))
            }
            applied => applied,
        };
        self.release_savepoint()?;
        applied
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
        self.capture.set(Mode::Rewind);
        let undone = self.without_foreign_keys(|| newest_first.iter().try_for_each(|captured| self.undo(captured)));
        self.capture.close();
        undone?;
        self.transaction.prepare_cached("DELETE FROM local_undo WHERE seq >= ?")?.execute([first])?;
        Ok(newest_first.into_iter().map(|captured| captured.row).collect())
    }
}

/// Foreign keys say so themselves, or, with RESTRICT, by the trigger that SQLite makes for them.
fn breaks_a_reference(error: &SqlError) -> bool {
    use rusqlite::ffi::{SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_TRIGGER};
    matches!(error, SqlError::Database { code: SQLITE_CONSTRAINT_FOREIGNKEY | SQLITE_CONSTRAINT_TRIGGER, .. })
}

/// The stored form of an effect's columns.
pub(super) fn packed_columns(effect: &Effect) -> Option<Vec<u8>> {
    effect.columns().map(pack)
}
