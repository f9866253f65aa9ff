//! What can go wrong with the local database.

use crate::model::RowKey;

/// A statement failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The database refused it.
    #[error("{message} (SQLite code {code})")]
    Database {
        /// SQLite's extended result code.
        code: i32,
        /// SQLite's message; names tables and columns, never values.
        message: String,
    },
    /// SQLite cannot store this value: NaN would become NULL.
    #[error("{kind} cannot be stored")]
    NotStorable {
        /// The kind of value.
        kind: &'static str,
    },
}

/// The local database cannot do what the engine asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database failed: busy, full, read-only, corrupt, or a constraint that a patch breaks.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// A patch does not fit the local schema.
    #[error("row {} of {}: no column {column} here", row.row_id, row.table)]
    UnknownColumn {
        /// The patch's row.
        row: RowKey,
        /// The column that this database does not have.
        column: String,
    },
    /// A patch names a table that is not tracked here.
    #[error("row {} of {}: the table is not tracked here", row.row_id, row.table)]
    UntrackedTable {
        /// The patch's row.
        row: RowKey,
    },
    /// A tracked table cannot be synced as it is.
    #[error("table {table} cannot be tracked: {problem}")]
    Unsuitable {
        /// The table.
        table: String,
        /// What it lacks, and what to do.
        problem: &'static str,
    },
    /// The file was written by another version of this library.
    #[error("database has sync schema {found}, this version knows {known}")]
    SchemaVersion {
        /// What the file says.
        found: i64,
        /// What this version reads and writes.
        known: i64,
    },
    /// Something stored cannot be read back.
    #[error("stored {what} is damaged")]
    Damaged {
        /// Which column of which table.
        what: &'static str,
    },
}
