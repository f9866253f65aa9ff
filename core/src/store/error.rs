//! What can go wrong with the local database.

use crate::model::{TableName, UserId};

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

impl SqlError {
    /// The state of the disk or of the file behind this, if the statement itself is not to blame.
    ///
    /// Such a failure says nothing about an action: the same statement works when the trouble is over.
    #[must_use]
    pub fn fault(&self) -> Option<StoreError> {
        match self {
            Self::Database { code, .. } => fault_of(*code),
            Self::NotStorable { .. } => None,
        }
    }
}

/// By SQLite's primary result code, the lowest byte of the extended one: <https://sqlite.org/rescode.html>.
fn fault_of(code: i32) -> Option<StoreError> {
    match code & 0xff {
        3 | 8 => Some(StoreError::ReadOnly),
        5 | 6 | 15 => Some(StoreError::Busy),
        7 | 10 | 14 | 22 => Some(StoreError::Io { code }),
        11 | 26 => Some(StoreError::Corrupt),
        13 => Some(StoreError::Full),
        _ => None,
    }
}

/// The local database cannot do what the engine asks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Another process kept the write lock for longer than the busy timeout. Trying again helps.
    #[error("the database is busy: another process is writing")]
    Busy,
    /// There is no space left on the disk, or within the database's size limit. Trying again helps once there is.
    #[error("no space is left for the database")]
    Full,
    /// The database belongs to another user than the one that it was opened for: the first one was signed out since.
    #[error("the database belongs to {expected}, not to {actual}")]
    ForeignUser {
        /// Whose data is there.
        expected: UserId,
        /// For whom it was opened.
        actual: UserId,
    },
    /// The file, or the folder that holds it, cannot be written.
    #[error("the database cannot be written: it is read-only")]
    ReadOnly,
    /// The file is damaged, or is no database.
    #[error("the database file is damaged")]
    Corrupt,
    /// The file cannot be opened, or reading or writing it failed.
    #[error("the database's disk failed (SQLite code {code})")]
    Io {
        /// SQLite's extended result code.
        code: i32,
    },
    /// A statement failed: most often a constraint that a patch breaks.
    #[error(transparent)]
    Sql(SqlError),
    /// An accepted row cannot be stored here: this column must not be NULL, or must be of another type, and nothing says
    /// what else it should be. The app's schema is older, or newer, than the server's.
    #[error("table {table} cannot take an accepted row: it does not give column {column} what it needs")]
    Incompatible {
        /// The table.
        table: TableName,
        /// The column.
        column: String,
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
    /// One of the app's own migrations failed; the file is as it was.
    #[error("the app's migration {number} failed: {source}")]
    Migration {
        /// Which: the first is 1.
        number: u32,
        /// SQLite's reason.
        source: SqlError,
    },
    /// A newer version of the app migrated this file.
    #[error("the app's migrations through {found} were run on the database, this version of the app knows {known}")]
    NewerApp {
        /// The newest that the file has seen.
        found: u32,
        /// How many this app has.
        known: u32,
    },
    /// Something stored cannot be read back.
    #[error("stored {what} is damaged")]
    Damaged {
        /// Which column of which table.
        what: &'static str,
    },
}

impl From<SqlError> for StoreError {
    fn from(error: SqlError) -> Self {
        error.fault().unwrap_or(Self::Sql(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_code_says_whether_the_statement_or_the_disk_is_to_blame() {
        let error = |code| StoreError::from(SqlError::Database { code, message: "SQLite's words".to_owned() });
        let io_of_fsync = 10 | (4 << 8);
        let busy_snapshot = 5 | (2 << 8);
        assert_eq!([error(5), error(busy_snapshot), error(6)], [StoreError::Busy, StoreError::Busy, StoreError::Busy]);
        assert_eq!(
            [error(13), error(8), error(8 | (1 << 8))],
            [StoreError::Full, StoreError::ReadOnly, StoreError::ReadOnly]
        );
        assert_eq!([error(11), error(26)], [StoreError::Corrupt, StoreError::Corrupt]);
        assert_eq!(error(io_of_fsync), StoreError::Io { code: io_of_fsync });
        assert_eq!(error(14), StoreError::Io { code: 14 });
        // SQL error, too big, constraint (unique), mismatch.
        for of_the_statement in [1, 18, 2067, 20] {
            assert!(matches!(error(of_the_statement), StoreError::Sql(_)), "{of_the_statement}");
        }
        assert_eq!(SqlError::NotStorable { kind: "NaN" }.fault(), None);
    }
}
