//! Read-only connections for the app: they never wait for the writer, and it never waits for them.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::codec::read_rows;
use crate::model::Value;
use crate::store::{Row, SqlError};

/// A read-only connection to the local database. Each query sees the newest commit.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
}

impl Reader {
    /// Opens a connection of its own.
    ///
    /// # Errors
    /// [`SqlError`] if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SqlError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        Ok(Self { connection })
    }

    /// Runs a query and returns all its rows.
    ///
    /// # Errors
    /// [`SqlError`] with SQLite's own reason; writing is refused.
    pub fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        read_rows(&mut *self.connection.prepare_cached(sql)?, params)
    }
}
