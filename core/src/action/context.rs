//! All that an action may touch: rows, the captured time, row ids and random numbers that replay alike.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use super::ActionError;
use super::identity::{Inserted, Tables};
use crate::model::{ActionId, ClientId, Hlc, RowId, UserId, Value};
use crate::store::{Row, Sql, SqlError, StoreError};

/// Which execution is running. The same on every replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executing {
    pub(crate) action_id: ActionId,
    pub(crate) client_id: ClientId,
    pub(crate) user_id: UserId,
    pub(crate) clock: Hlc,
}

/// An action's view of the world while it runs.
pub struct Context<'a> {
    sql: &'a dyn Sql,
    tables: &'a Tables,
    executing: Executing,
    inserted: Inserted,
    random: ChaCha8Rng,
    /// The disk failed under a statement. Whatever the action made of it, this is no fact about the action.
    fault: Option<StoreError>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(sql: &'a dyn Sql, tables: &'a Tables, executing: Executing) -> Self {
        let mut seed = [0; 32];
        seed[..16].copy_from_slice(executing.action_id.as_uuid().as_bytes());
        Self { sql, tables, executing, inserted: Inserted::default(), random: ChaCha8Rng::from_seed(seed), fault: None }
    }

    /// Runs one statement that writes; returns how many rows it changed.
    ///
    /// Statements may read any table and write tracked ones; schema, transaction and `PRAGMA` statements are refused.
    ///
    /// # Errors
    /// [`ActionError::Sql`] with SQLite's own reason.
    pub fn execute(&mut self, sql: &str, params: &[Value]) -> Result<usize, ActionError> {
        let ran = self.sql.execute(sql, params);
        Ok(self.noting_fault(ran)?)
    }

    /// Runs a query and returns all its rows. Add an `ORDER BY` wherever the order matters.
    ///
    /// # Errors
    /// [`ActionError::Sql`] with SQLite's own reason.
    pub fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, ActionError> {
        let ran = self.sql.query(sql, params);
        Ok(self.noting_fault(ran)?)
    }

    /// Runs a query and returns its first row, if it has one.
    ///
    /// # Errors
    /// [`ActionError::Sql`] with SQLite's own reason.
    pub fn query_one(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>, ActionError> {
        Ok(self.query(sql, params)?.into_iter().next())
    }

    fn noting_fault<T>(&mut self, ran: Result<T, SqlError>) -> Result<T, SqlError> {
        ran.inspect_err(|error| {
            if self.fault.is_none() {
                self.fault = error.fault();
            }
        })
    }

    /// The action has ended. If the disk failed under a statement, nothing that the action did or returned counts.
    pub(crate) fn finish(self) -> Result<(), StoreError> {
        self.fault.map_or(Ok(()), Err)
    }

    /// Inserts a row under its deterministic id, which is returned. For tables with given ids, `row` holds `id`.
    ///
    /// # Errors
    /// [`ActionError::IdentityCollision`] if this action has inserted a row of the same identity before; otherwise as
    /// [`Self::row_id`] and [`Self::execute`].
    pub fn insert(&mut self, table: &str, row: &[(&str, Value)]) -> Result<RowId, ActionError> {
        let id = self.row_id(table, row)?;
        self.inserted.note(self.tables, table, &id)?;
        let others: Vec<_> = row.iter().filter(|(column, _)| *column != "id").collect();
        let columns: String = others.iter().map(|(column, _)| format!(", {}", quoted(column))).collect();
        let sql = format!("INSERT INTO {} (\"id\"{columns}) VALUES (?{})", quoted(table), ", ?".repeat(others.len()));
        let values: Vec<Value> =
            std::iter::once(Value::from(&id)).chain(others.into_iter().map(|(_, value)| value.clone())).collect();
        self.execute(&sql, &values)?;
        Ok(id)
    }

    /// The id that [`Self::insert`] would give this row: UUIDv5 of the action, the table and its identity columns.
    ///
    /// # Errors
    /// [`ActionError::UntrackedTable`] or [`ActionError::IdentityColumnMissing`].
    pub fn row_id(&self, table: &str, row: &[(&str, Value)]) -> Result<RowId, ActionError> {
        self.tables.row_id(self.executing.action_id, table, row)
    }

    /// When the action was executed, in milliseconds since 1970: the wall part of its clock, the same on every replay.
    #[must_use]
    pub fn timestamp_ms(&self) -> i64 {
        self.executing.clock.millis()
    }

    /// The user who executed the action, wherever it is replayed.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.executing.user_id
    }

    /// The execution's id.
    #[must_use]
    pub fn action_id(&self) -> ActionId {
        self.executing.action_id
    }

    /// The next number of this execution's own random sequence, the same on every replay.
    pub fn random_u64(&mut self) -> u64 {
        self.random.next_u64()
    }
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("executing", &self.executing).finish_non_exhaustive()
    }
}

/// An identifier for SQL text, whatever it holds.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
