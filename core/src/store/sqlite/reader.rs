//! Read-only connections for the app: they never wait for the writer, and it never waits for them.
//!
//! Place in the journey: beside the engine, at its end. An authorizer sees each statement while it is prepared: it keeps
//! queries from holding a transaction open, which would show old rows for good, and notes what a statement reads and
//! writes, for live queries.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::functions::FunctionFlags;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OpenFlags};

use super::app_triggers::writes;
use super::capture::FUNCTIONS;
use super::codec::read_rows;
use crate::model::{TableName, Value};
use crate::store::{Row, SqlError};

/// A read-only connection to the local database. Each query sees the newest commit.
#[derive(Debug)]
pub struct Reader {
    connection: Connection,
    noted: Noted,
}

impl Reader {
    /// Opens a connection of its own.
    ///
    /// # Errors
    /// [`SqlError`] if the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SqlError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        // Writes are only ever prepared here, to learn what they would reach: cascades too, and through capture triggers.
        connection.execute_batch("PRAGMA foreign_keys = ON")?;
        for (function, arguments) in FUNCTIONS {
            connection.create_scalar_function(function, arguments, FunctionFlags::SQLITE_UTF8, |_| Ok(false))?;
        }
        let noted = Noted::default();
        let noting = noted.clone();
        connection.authorizer(Some(move |asked: AuthContext<'_>| noting.authorize(&asked)))?;
        Ok(Self { connection, noted })
    }

    /// Runs a query and returns all its rows.
    ///
    /// # Errors
    /// [`SqlError`] with SQLite's own reason; writing is refused, and so are transactions and other databases.
    pub fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        read_rows(&mut *self.connection.prepare_cached(sql)?, params)
    }

    /// The tables whose writes can change what a query returns: those that it reads, also through views, and those whose
    /// triggers and cascades write what it reads.
    ///
    /// # Errors
    /// [`SqlError`] with SQLite's own reason if the query cannot be prepared.
    pub fn sources(&self, sql: &str) -> Result<BTreeSet<TableName>, SqlError> {
        let reads = self.prepared(sql)?.reads;
        let mut sources = reads.clone();
        for (table, columns) in self.tables()? {
            let mut reached = BTreeSet::new();
            for write in writes(&table, columns.iter().map(String::as_str)) {
                reached.append(&mut self.prepared(&write)?.writes);
            }
            if !reached.is_disjoint(&reads) {
                sources.insert(table);
            }
        }
        // A name that is too long for us is the name of no tracked table.
        Ok(sources.into_iter().filter_map(|table| TableName::new(table).ok()).collect())
    }

    /// What preparing a statement touches. It is not run.
    fn prepared(&self, sql: &str) -> Result<Touched, SqlError> {
        *self.noted.touched() = Touched::default();
        // A cached statement would not be seen again.
        drop(self.connection.prepare(sql)?);
        Ok(std::mem::take(&mut self.noted.touched()))
    }

    /// Every table that has triggers, with the columns that can be written. A tracked table always has some.
    fn tables(&self) -> Result<BTreeMap<String, Vec<String>>, SqlError> {
        let mut statement = self.connection.prepare_cached(
            "SELECT t.name, c.name FROM sqlite_schema AS t, pragma_table_xinfo(t.name) AS c \
             WHERE t.type = 'table' AND c.hidden = 0 \
             AND EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = t.name)",
        )?;
        let mut rows = statement.query([])?;
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        while let Some(row) = rows.next()? {
            tables.entry(row.get(0)?).or_default().push(row.get(1)?);
        }
        Ok(tables)
    }
}

/// What a statement touches, by the name of each table and view.
#[derive(Debug, Clone, Default)]
struct Touched {
    reads: BTreeSet<String>,
    writes: BTreeSet<String>,
}

/// What was touched since it was taken last; shared with the authorizer.
#[derive(Debug, Clone, Default)]
struct Noted(Arc<Mutex<Touched>>);

impl Noted {
    fn touched(&self) -> MutexGuard<'_, Touched> {
        // Names are added one by one: a panic leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn authorize(&self, asked: &AuthContext<'_>) -> Authorization {
        match asked.action {
            AuthAction::Read { table_name, .. } => {
                note(&mut self.touched().reads, table_name);
            }
            AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name } => {
                note(&mut self.touched().writes, table_name);
            }
            // They would outlive the query, on a connection that others use after it.
            AuthAction::Transaction { .. }
            | AuthAction::Savepoint { .. }
            | AuthAction::Attach { .. }
            | AuthAction::Detach { .. } => return Authorization::Deny,
            _ => {}
        }
        Authorization::Allow
    }
}

fn note(names: &mut BTreeSet<String>, name: &str) {
    if !names.contains(name) {
        names.insert(name.to_owned());
    }
}
