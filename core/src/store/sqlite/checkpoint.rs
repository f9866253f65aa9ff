//! Checkpoints: what commits left in the write-ahead log is copied into the database, beside the commits.
//!
//! Place in the journey: after a commit, for nobody to wait for. SQLite would do it within whichever commit comes when the
//! log is long enough: that one takes several syncs longer than all others. So a connection of its own does it, while the
//! writer goes on.
//!
//! # Invariants
//! - One checkpoint of a store runs at a time.
//! - A log that grows although checkpoints run, or because none can, is cut by the writer itself in the end: it is bounded
//!   by readers alone, as in SQLite without all this.
//! - What a checkpoint cannot do now, it leaves: the next commit asks for one again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags};

use crate::store::StoreError;

/// A log of so many pages is due; SQLite's own measure.
const DUE_PAGES: u32 = 1_000;
/// A log of so many pages is cut by the writer: a few megabytes more on disk than without a checkpointer.
const OVERDUE_PAGES: u32 = 4 * DUE_PAGES;

/// The write-ahead log, as the writer and the checkpointer know it.
#[derive(Debug)]
struct Log {
    /// The database's file.
    path: PathBuf,
    /// How many pages the log had after the newest commit.
    pages: AtomicU32,
    /// Whether there is a checkpointer; without one, the writer waits for nobody.
    shared: AtomicBool,
    /// Whether a checkpoint runs.
    running: AtomicBool,
}

/// The writer's side: looks at the log after each commit.
#[derive(Debug)]
pub(super) struct Commits(Arc<Log>);

impl Commits {
    /// Looks after the commits of the writing connection.
    pub(super) fn watch(connection: &mut Connection, path: PathBuf) -> Result<Self, StoreError> {
        let log = Arc::new(Log { path, pages: AtomicU32::default(), shared: false.into(), running: false.into() });
        let noted = Arc::clone(&log);
        connection.wal_hook(Some(move |log: &mut Wal, pages: i32| {
            let pages = u32::try_from(pages).unwrap_or(0);
            noted.pages.store(pages, Ordering::Relaxed);
            let bound = if noted.shared.load(Ordering::Relaxed) { OVERDUE_PAGES } else { DUE_PAGES };
            if pages >= bound {
                // The commit is done: what a checkpoint says is nothing against it.
                let _left = log.checkpoint();
            }
            Ok(())
        }))?;
        Ok(Self(log))
    }

    /// The other side. From now on, the writer leaves checkpoints to it, as far as it comes to them.
    pub(super) fn checkpointer(&self) -> Checkpointer {
        self.0.shared.store(true, Ordering::Relaxed);
        Checkpointer(Arc::clone(&self.0))
    }
}

/// Copies the write-ahead log into the database, on a connection of its own.
#[derive(Debug)]
pub(crate) struct Checkpointer(Arc<Log>);

impl Checkpointer {
    /// A checkpoint, if one is due and none runs: to be run where blocking is allowed, and nobody waits.
    pub(crate) fn due(&self) -> Option<Checkpoint> {
        let long = self.0.pages.load(Ordering::Relaxed) >= DUE_PAGES;
        (long && !self.0.running.swap(true, Ordering::Acquire)).then(|| Checkpoint(Arc::clone(&self.0)))
    }
}

/// One that is to be done.
#[derive(Debug)]
pub(crate) struct Checkpoint(Arc<Log>);

impl Checkpoint {
    /// Copies as much as can be copied without anybody waiting.
    pub(crate) fn run(self) {
        let copied = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.0.path, flags)?;
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| Ok((row.get(1)?, row.get(2)?)))
        };
        match copied() {
            Ok::<(i64, i64), rusqlite::Error>((pages, copied)) => tracing::trace!(pages, copied, "checkpoint"),
            Err(error) => tracing::debug!(code = ?error.sqlite_error_code(), "no checkpoint"),
        }
        self.0.pages.store(0, Ordering::Relaxed);
    }
}

impl Drop for Checkpoint {
    /// Also of one that is never run: its runtime may be shutting down.
    fn drop(&mut self) {
        self.0.running.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use uuid::Uuid;

    use super::super::{Durability, SqliteSettings, SqliteStore};
    use super::*;
    use crate::model::{ClientId, UserId};
    use crate::store::Store;

    const PAGE_BYTES: u64 = 4096;

    fn open(folder: &Path) -> SqliteStore {
        SqliteStore::open(&SqliteSettings {
            path: folder.join("app.db"),
            schema: "CREATE TABLE IF NOT EXISTS notes (text TEXT)".to_owned(),
            tables: Vec::new(),
            user_id: UserId::new("alice").expect("ok"),
            new_client_id: ClientId::from_uuid(Uuid::from_u128(1)),
            durability: Durability::Normal,
            busy_timeout: Duration::from_secs(1),
        })
        .expect("opens")
    }

    /// Commits about a hundred pages.
    fn write(store: &mut SqliteStore) {
        let txn = store.begin().expect("begins");
        txn.as_sql().execute("INSERT INTO notes VALUES (hex(zeroblob(200000)))", &[]).expect("writes");
        txn.commit().expect("commits");
    }

    fn pages(folder: &Path, name: &str) -> u64 {
        folder.join(name).metadata().expect("is there").len() / PAGE_BYTES
    }

    #[test]
    fn the_writer_alone_cuts_its_log_when_it_is_due() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path());
        for _commit in 0..50 {
            write(&mut store);
        }
        let log = pages(folder.path(), "app.db-wal");
        assert!((u64::from(DUE_PAGES)..u64::from(DUE_PAGES) * 2).contains(&log), "{log}");
    }

    #[test]
    fn what_is_due_is_copied_beside_the_writer() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path());
        let checkpointer = store.checkpointer();
        let mut runs = 0;
        for _commit in 0..50 {
            write(&mut store);
            if let Some(checkpoint) = checkpointer.due() {
                assert!(checkpointer.due().is_none(), "one at a time");
                let before = pages(folder.path(), "app.db");
                checkpoint.run();
                assert!(pages(folder.path(), "app.db") > before, "it is in the database");
                runs += 1;
                assert!(checkpointer.due().is_none(), "it is done");
            }
        }
        let log = pages(folder.path(), "app.db-wal");
        assert!((u64::from(DUE_PAGES)..u64::from(DUE_PAGES) * 2).contains(&log), "{log}");
        assert!((4..=5).contains(&runs), "{runs}");
    }

    #[test]
    fn a_log_that_nobody_copies_is_bounded_all_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = open(folder.path());
        let checkpointer = store.checkpointer();
        assert!(checkpointer.due().is_none(), "nothing is due yet");
        for _commit in 0..150 {
            write(&mut store);
            // As when a runtime shuts down.
            drop(checkpointer.due());
        }
        let log = pages(folder.path(), "app.db-wal");
        assert!((u64::from(OVERDUE_PAGES)..u64::from(OVERDUE_PAGES) + 200).contains(&log), "{log}");
        assert!(checkpointer.due().is_some(), "it stays due");
    }
}
