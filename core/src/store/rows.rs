//! Application rows: statements of actions with capture, patches, undo.

use super::{Displaced, Row, SqlError, StoreError};
use crate::model::{ActionId, Patch, RowKey, Value};

/// Statements of an action, on the transaction that it runs in.
pub trait Sql {
    /// Runs one statement; returns how many rows it changed.
    ///
    /// # Errors
    /// [`SqlError`] with the database's own reason.
    fn execute(&self, sql: &str, params: &[Value]) -> Result<usize, SqlError>;

    /// Runs one query; returns all rows.
    ///
    /// # Errors
    /// [`SqlError`] with the database's own reason.
    fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError>;
}

/// Application rows of tracked tables. Each change is captured, as the undo and as the patch of one action.
pub trait RowStore {
    /// Begins what may be taken back by [`Self::rollback_to_savepoint`]; savepoints nest.
    fn savepoint(&self) -> Result<(), StoreError>;
    /// Ends the newest savepoint and keeps what was done since.
    fn release_savepoint(&self) -> Result<(), StoreError>;
    /// Ends the newest savepoint and takes back what was done since, captured effects included.
    fn rollback_to_savepoint(&self) -> Result<(), StoreError>;

    /// Until [`Self::end_action`]: statements are an action's own, and are captured as effects of `action`.
    fn begin_action(&self, action: ActionId) -> Result<(), StoreError>;
    /// Statements of actions are over; application rows are closed again.
    fn end_action(&self);

    /// Sets rows as an accepted patch says, whatever stands in its way, and captures that as effects of `action`. Absent
    /// rows are not updated; tables and columns that are not here are left out. A row is its table, its id and its audience:
    /// one of the same id in another audience stands in the way. Returns the rows that are displaced by it.
    fn apply_patch(&self, action: ActionId, patch: &[Patch]) -> Result<Vec<Displaced>, StoreError>;

    /// What `action` did to rows when it was last (re)applied, in sequence.
    fn captured(&self, action: ActionId) -> Result<Vec<Patch>, StoreError>;

    /// Whether any effect of `action` is applied.
    fn has_effects(&self, action: ActionId) -> Result<bool, StoreError>;

    /// The action that has the newest undo.
    fn newest_undone(&self) -> Result<Option<ActionId>, StoreError>;
    /// The action that has the oldest undo.
    fn oldest_undone(&self) -> Result<Option<ActionId>, StoreError>;
    /// What the database itself finds wrong with its file.
    fn check_file(&self) -> Result<Vec<String>, StoreError>;

    /// Undoes every captured effect from the first of `action` on, newest first; returns the rows that it touched. What stands
    /// in its way has come without a trace for undo, and is displaced.
    fn rewind(&self, action: ActionId) -> Result<Vec<RowKey>, StoreError>;
}
