//! Placing effects that are not an action's own statements: accepted patches, undo, snapshots.
//!
//! # What a patch may break
//! Accepted history is never judged again: the server has checked its constraints on rows that may not be visible here,
//! and in another order. So, for patches and for undo,
//! - foreign keys are off: a reference may point to a row of an audience that is not visible here, and a cascade has its
//!   own effects in the patch. They are on for actions, which fail on them as on any other rule;
//! - CHECK constraints are passed over;
//! - a value that is UNIQUE here and held by another row displaces that row ([`super::displaced`]). So does an id: a row is
//!   its table, its id and its audience, and while one that moved to another audience is here as both, one of them waits;
//! - a column or a table that this database does not have is left out: the log keeps it;
//! - a column that must not be NULL here and is not given is the one thing that cannot be passed over:
//!   [`StoreError::Incompatible`].

use rusqlite::config::DbConfig;
use rusqlite::{OptionalExtension, ffi, params_from_iter};

use super::SqliteTxn;
use super::codec::{Bound, check_storable};
use super::tables::TrackedTable;
use crate::action::quoted;
use crate::model::{AudienceRow, Columns, Effect, RowKey, Value};
use crate::store::{Displaced, SqlError, StoreError};

/// Where a row is. An id alone may be that of a row of another audience.
const THE_ROW: &str = "\"id\" = ? AND \"audience_key\" = ?";

/// What a statement does about a UNIQUE value, or an id, that another row holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conflict {
    /// It fails.
    Fail,
    /// The other row goes.
    Replace,
}

impl SqliteTxn<'_> {
    /// Foreign keys are for actions. A switch makes SQLite prepare its statements anew, so it is left as it is until the
    /// other kind comes along, and never made in a database without foreign keys.
    pub(super) fn enforce_foreign_keys(&self, enforce: bool) -> Result<(), StoreError> {
        if self.enforcing.get() != enforce && self.capture.has_foreign_keys() {
            self.transaction.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, enforce)?;
            self.enforcing.set(enforce);
        }
        Ok(())
    }

    /// Gives a row an accepted effect, whatever stands in its way.
    pub(super) fn place(
        &self,
        row: &AudienceRow,
        effect: &Effect,
        displaced: &mut Vec<Displaced>,
    ) -> Result<(), StoreError> {
        if self.has_displaced_rows()? && self.is_taken_by_displaced(row, effect)? {
            return Ok(());
        }
        match self.apply(row, effect) {
            Err(StoreError::Sql(constraint)) if is(&constraint, ffi::SQLITE_CONSTRAINT_UNIQUE) => {
                let columns = unique_columns(&constraint, &row.row);
                let left = |row| Displaced { row, columns: columns.clone(), constraint: constraint.clone() };
                displaced.extend(self.displace(row, effect)?.into_iter().map(left));
                Ok(())
            }
            placed => placed,
        }
    }

    /// Gives a row an effect; a UNIQUE value, or an id, that another row holds is an error.
    pub(super) fn apply(&self, row: &AudienceRow, effect: &Effect) -> Result<(), StoreError> {
        match self.write(row, effect, Conflict::Fail) {
            Err(StoreError::Sql(broken)) if is(&broken, ffi::SQLITE_CONSTRAINT_CHECK) => {
                self.write_unchecked(row, effect, Conflict::Fail)
            }
            Err(StoreError::Sql(SqlError::Database { code, message }))
                if [ffi::SQLITE_CONSTRAINT_NOTNULL, ffi::SQLITE_CONSTRAINT_DATATYPE].contains(&code) =>
            {
                let column = message.rsplit_once(&format!("{}.", row.row.table)).map_or("", |(_, column)| column);
                Err(StoreError::Incompatible { table: row.row.table.clone(), column: column.to_owned() })
            }
            written => written,
        }
    }

    /// Gives a row an effect, whatever CHECK says. Rows in its way go.
    pub(super) fn force(&self, row: &AudienceRow, effect: &Effect) -> Result<(), StoreError> {
        self.write_unchecked(row, effect, Conflict::Replace)
    }

    fn write_unchecked(&self, row: &AudienceRow, effect: &Effect, conflict: Conflict) -> Result<(), StoreError> {
        self.transaction.execute_batch("PRAGMA ignore_check_constraints = ON")?;
        let written = self.write(row, effect, conflict);
        self.transaction.execute_batch("PRAGMA ignore_check_constraints = OFF")?;
        written
    }

    fn write(&self, row: &AudienceRow, effect: &Effect, conflict: Conflict) -> Result<(), StoreError> {
        let Some(table) = self.capture.stored_table(row.row.table.as_str()) else { return Ok(()) };
        let row = [&Value::from(&row.row.row_id), &Value::from(&row.audience_key)];
        match effect {
            Effect::Insert(columns) => self.set_row(&table, row, columns, conflict),
            Effect::Update(columns) => self.update_row(&table, row, columns, conflict),
            Effect::Delete => self.run(&format!("DELETE FROM {} WHERE {THE_ROW}", quoted(&table.name)), &row).map(drop),
            Effect::Nothing => Ok(()),
        }
    }

    fn set_row(
        &self,
        table: &TrackedTable,
        row: [&Value; 2],
        columns: &Columns,
        conflict: Conflict,
    ) -> Result<(), StoreError> {
        if conflict == Conflict::Replace && self.row_exists(table, row)? {
            return self.update_row(table, row, columns, conflict);
        }
        let [id, audience] = row;
        let mut names = vec![quoted("id")];
        let mut values = vec![id];
        for (column, value) in columns.iter().filter(|(column, _)| table.columns.contains_key(*column)) {
            names.push(quoted(column));
            values.push(value);
        }
        // A row without other columns is set to its id, so that it counts as set.
        let set = if names.len() > 1 { &names[1..] } else { &names[..] };
        let sets: Vec<String> = set.iter().map(|name| format!("{name} = excluded.{name}")).collect();
        if !table.audience_is_generated {
            names.push(quoted("audience_key"));
            values.push(audience);
        }
        let name = quoted(&table.name);
        let into = format!("INTO {name} ({}) VALUES (?{})", names.join(", "), ", ?".repeat(names.len() - 1));
        let sql = match conflict {
            Conflict::Replace => format!("INSERT OR REPLACE {into}"),
            Conflict::Fail => format!(
                "INSERT {into} ON CONFLICT (\"id\") DO UPDATE SET {} \
                 WHERE {name}.\"audience_key\" = excluded.\"audience_key\"",
                sets.join(", ")
            ),
        };
        if self.run(&sql, &values)? == 0 { Err(id_is_taken(table)) } else { Ok(()) }
    }

    fn update_row(
        &self,
        table: &TrackedTable,
        row: [&Value; 2],
        columns: &Columns,
        conflict: Conflict,
    ) -> Result<(), StoreError> {
        let mut sets = Vec::with_capacity(columns.len());
        let mut values = Vec::with_capacity(columns.len() + row.len());
        for (column, value) in columns.iter().filter(|(column, _)| table.columns.contains_key(*column)) {
            sets.push(format!("{} = ?", quoted(column)));
            values.push(value);
        }
        if sets.is_empty() {
            return Ok(());
        }
        values.extend(row);
        let or = if conflict == Conflict::Replace { "OR REPLACE " } else { "" };
        let sql = format!("UPDATE {or}{} SET {} WHERE {THE_ROW}", quoted(&table.name), sets.join(", "));
        self.run(&sql, &values).map(drop)
    }

    pub(super) fn row_exists(&self, table: &TrackedTable, row: [&Value; 2]) -> Result<bool, StoreError> {
        let sql = format!("SELECT 1 FROM {} WHERE {THE_ROW}", quoted(&table.name));
        Ok(self.transaction.prepare_cached(&sql)?.query_row(row.map(Bound), |_| Ok(())).optional()?.is_some())
    }

    fn run(&self, sql: &str, values: &[&Value]) -> Result<usize, StoreError> {
        check_storable(values.iter().copied())?;
        let values = params_from_iter(values.iter().map(|value| Bound(value)));
        Ok(self.transaction.prepare_cached(sql)?.execute(values)?)
    }
}

/// Whether the database refused for this reason.
pub(super) fn is(error: &SqlError, code: i32) -> bool {
    matches!(error, SqlError::Database { code: found, .. } if *found == code)
}

/// What SQLite would say of an id that a row of another audience has, if the statement did not ask for less.
fn id_is_taken(table: &TrackedTable) -> StoreError {
    let message = format!("UNIQUE constraint failed: {}.id", table.name);
    SqlError::Database { code: ffi::SQLITE_CONSTRAINT_UNIQUE, message }.into()
}

/// The columns that SQLite names: `UNIQUE constraint failed: table.one, table.two`.
fn unique_columns(constraint: &SqlError, key: &RowKey) -> Vec<String> {
    let SqlError::Database { message, .. } = constraint else { return Vec::new() };
    let Some(named) = message.strip_prefix("UNIQUE constraint failed: ") else { return Vec::new() };
    let of_table = format!("{}.", key.table);
    named.split(", ").filter_map(|column| column.strip_prefix(&of_table)).map(str::to_owned).collect()
}
