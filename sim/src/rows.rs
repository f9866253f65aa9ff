//! Rows as an app sees them, and what a workload may look at.

use std::collections::{BTreeMap, BTreeSet};

use synchrotron_core::model::{AudienceKey, RowId, RowKey, TableName, UserId, Value};
use synchrotron_core::network::memory::MemoryRow;

/// The rows of all tracked tables.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rows(pub(crate) BTreeMap<RowKey, MemoryRow>);

impl Rows {
    /// The rows of one table, in order of their ids.
    pub fn of<'r>(&'r self, table: &'r str) -> impl Iterator<Item = (&'r RowId, &'r MemoryRow)> {
        self.0.iter().filter(move |(key, _)| key.table.as_str() == table).map(|(key, row)| (&key.row_id, row))
    }

    /// One row.
    #[must_use]
    pub fn row(&self, table: &str, id: &str) -> Option<&MemoryRow> {
        let key = RowKey { table: TableName::new(table).ok()?, row_id: RowId::new(id).ok()? };
        self.0.get(&key)
    }

    /// A number in a row; `None` if the row, the column or the number is absent.
    #[must_use]
    pub fn integer(row: &MemoryRow, column: &str) -> Option<i64> {
        match row.columns.get(column) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        }
    }

    /// A text in a row; `None` if the column or the text is absent.
    #[must_use]
    pub fn text<'r>(row: &'r MemoryRow, column: &str) -> Option<&'r str> {
        match row.columns.get(column) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What the app on one device sees when it decides what to do next.
#[derive(Debug)]
pub struct View<'a> {
    /// The device's number.
    pub device: usize,
    /// Who uses it.
    pub user: &'a UserId,
    /// The user's audiences, as the newest session said.
    pub audiences: &'a BTreeSet<AudienceKey>,
    /// The rows that the device shows.
    pub rows: &'a Rows,
    /// The device's wall clock, in milliseconds.
    pub now_ms: i64,
}
