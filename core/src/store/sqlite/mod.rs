//! The store on SQLite: one writing connection, any number of readers.
//!
//! Place in the journey: beneath the engine. WAL lets readers go on while the writer works. The file refuses writers
//! that are not this library: capture triggers call functions that only our connections have.

mod app_migrations;
mod app_triggers;
mod audience;
mod capture;
mod checkpoint;
mod codec;
mod displaced;
mod drift;
mod fate;
mod log;
mod migrate;
mod place;
#[cfg(test)]
mod plans;
mod reader;
mod record;
mod rows;
mod settings;
mod status;
mod tables;
mod triggers;
mod undo;
mod words;
#[cfg(test)]
mod work;

use std::cell::Cell;
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

pub(crate) use checkpoint::Checkpointer;
pub use reader::Reader;
pub use settings::{Durability, SqliteSettings};

use self::capture::Capture;
use self::checkpoint::Commits;
use self::migrate::make_sync_tables;
use self::status::StatusCache;
use super::{Sql, Store, StoreError, StoreTxn};
use crate::action::Table;
use crate::model::UserId;

/// More distinct statements than an app's actions and the engine together have.
const STATEMENT_CACHE: usize = 256;

/// Enough for the inner pages of the log's indices after a long history; SQLite's own 2 MiB are not.
const PAGE_CACHE_KIB: u32 = 8 * 1024;

/// The SQLite store.
#[derive(Debug)]
pub struct SqliteStore {
    connection: Connection,
    capture: Capture,
    commits: Commits,
    path: PathBuf,
    /// For whom it was opened.
    user_id: UserId,
    /// SQLite's count of commits by other connections, as it was asked last.
    others: i64,
    tables: Vec<Table>,
    /// SQLite's count of schema changes when capture was last installed: another connection may have made more.
    installed: Cell<i64>,
    /// Whether foreign keys are enforced now.
    enforcing: Cell<bool>,
    durability: Durability,
    /// What the connection keeps to now.
    keeping: Durability,
}

impl SqliteStore {
    /// Opens the database, makes or checks the sync tables, and installs capture on the tracked tables.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] names a table that cannot be tracked and why; [`StoreError::SchemaVersion`] a file of
    /// another version; otherwise SQLite's own reason. Whose data it is, each transaction checks.
    pub fn open(settings: &SqliteSettings) -> Result<Self, StoreError> {
        Self::open_migrated(settings, &[])
    }

    /// The same, after the steps of the app's own that this file has not seen.
    ///
    /// # Errors
    /// Also [`StoreError::Migration`], and [`StoreError::NewerApp`] if the file has seen more.
    pub fn open_migrated(settings: &SqliteSettings, steps: &[String]) -> Result<Self, StoreError> {
        let mut connection = Connection::open(&settings.path)?;
        connection.busy_timeout(settings.busy_timeout)?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        // Plans do not depend on bound values. Otherwise SQLite prepares some cached statements again at every use.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.execute_batch(&format!(
            "PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA recursive_triggers = ON; \
             PRAGMA cache_size = -{PAGE_CACHE_KIB};"
        ))?;
        let durability = settings.durability;
        connection.execute_batch(synchronous(durability))?;
        let commits = Commits::watch(&mut connection, settings.path.clone())?;
        let capture = Capture::install_functions(&mut connection)?;
        let setup = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        make_sync_tables(&setup, settings)?;
        setup.execute_batch(&settings.schema)?;
        app_migrations::run(&setup, steps)?;
        capture.track(&setup, &settings.tables)?;
        drift::note_shape(&setup, &capture)?;
        let installed = Cell::new(schema_changes(&setup)?);
        setup.commit()?;
        let others = commits_of_others(&connection)?;
        let (path, tables) = (settings.path.clone(), settings.tables.clone());
        let user_id = settings.user_id.clone();
        let (enforcing, keeping) = (Cell::new(true), durability);
        Ok(Self {
            connection,
            capture,
            commits,
            path,
            user_id,
            others,
            tables,
            installed,
            enforcing,
            durability,
            keeping,
        })
    }

    /// The database file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What copies the write-ahead log into the database beside the writer, which from now on leaves that to it.
    pub(crate) fn checkpointer(&self) -> Checkpointer {
        self.commits.checkpointer()
    }
}

/// Moves with every commit of another connection, and with none of this one.
fn commits_of_others(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?)
}

/// How often the schema was changed, by any connection.
fn schema_changes(connection: &Connection) -> Result<i64, StoreError> {
    Ok(connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?)
}

/// In a write-ahead log, a commit that is synced syncs all commits before it.
const fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Full => "PRAGMA synchronous = FULL",
        Durability::Normal => "PRAGMA synchronous = NORMAL",
    }
}

impl SqliteStore {
    /// Begins a transaction: one that is kept so well, or one that only reads.
    fn begin_keeping(&mut self, durability: Option<Durability>) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.capture.close();
        if let Some(durability) = durability.filter(|durability| *durability != self.keeping) {
            self.connection.execute_batch(synchronous(durability))?;
            self.keeping = durability;
        }
        let writes = durability.is_some();
        let behavior = if writes { TransactionBehavior::Immediate } else { TransactionBehavior::Deferred };
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let mut changes = schema_changes(&transaction)?;
        if writes && changes != self.installed.get() {
            // Another connection changed the schema: columns may be new, triggers may be gone.
            self.capture.track(&transaction, &self.tables)?;
            drift::note_shape(&transaction, &self.capture)?;
            changes = schema_changes(&transaction)?;
        }
        let txn = SqliteTxn {
            _closing: Closing(&self.capture),
            transaction,
            capture: &self.capture,
            changes,
            installed: &self.installed,
            enforcing: &self.enforcing,
            displaced: Cell::new(None),
            status: StatusCache::default(),
        };
        // Another process may have signed the user out, and the next one in.
        txn.check_owner(&self.user_id)?;
        Ok(Box::new(txn))
    }
}

impl Store for SqliteStore {
    fn begin(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.begin_keeping(Some(self.durability))
    }

    fn begin_replaceable(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.begin_keeping(Some(Durability::Normal))
    }

    fn begin_reading(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.begin_keeping(None)
    }

    fn changed_elsewhere(&mut self) -> Result<bool, StoreError> {
        let before = std::mem::replace(&mut self.others, commits_of_others(&self.connection)?);
        Ok(self.others != before)
    }
}

/// One write transaction on SQLite.
#[derive(Debug)]
pub(super) struct SqliteTxn<'a> {
    /// Dropped before the transaction: its rollback is not one of an action's statements.
    _closing: Closing<'a>,
    transaction: Transaction<'a>,
    capture: &'a Capture,
    /// SQLite's count of schema changes, for `installed` if this commits.
    changes: i64,
    installed: &'a Cell<i64>,
    enforcing: &'a Cell<bool>,
    /// Whether any row is displaced, once that is known.
    displaced: Cell<Option<bool>>,
    status: StatusCache,
}

/// Closes application rows when it is dropped, whatever was going on.
#[derive(Debug)]
struct Closing<'a>(&'a Capture);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl StoreTxn for SqliteTxn<'_> {
    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.capture.close();
        self.keep_clock()?;
        let Self { transaction, changes, installed, .. } = *self;
        transaction.commit()?;
        installed.set(changes);
        Ok(())
    }

    fn as_sql(&self) -> &dyn Sql {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::model::ClientId;

    /// SQLite's words: 2 is `FULL`, 1 is `NORMAL`.
    fn synchronous(store: &SqliteStore) -> i64 {
        store.connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).expect("a number")
    }

    #[test]
    fn only_what_the_server_gives_again_is_not_synced() {
        let folder = tempfile::tempdir().expect("a folder");
        for (durability, synced) in [(Durability::Full, 2), (Durability::Normal, 1)] {
            let mut store = SqliteStore::open(&SqliteSettings {
                path: folder.path().join("app.db"),
                schema: String::new(),
                tables: Vec::new(),
                user_id: UserId::new("alice").expect("ok"),
                new_client_id: ClientId::from_uuid(Uuid::from_u128(1)),
                durability,
                busy_timeout: Duration::from_secs(1),
            })
            .expect("opens");
            assert_eq!(synchronous(&store), synced);
            store.begin_replaceable().and_then(StoreTxn::commit).expect("commits");
            assert_eq!(synchronous(&store), 1);
            store.begin().and_then(StoreTxn::commit).expect("commits");
            assert_eq!(synchronous(&store), synced);
        }
    }
}
