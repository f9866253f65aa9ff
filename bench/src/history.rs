//! Databases with a history, made once and copied for each use.
//!
//! Every database holds the base notes. A history is other users' renames of them: the log grows, the notes do not, so
//! what a longer history costs is the log's cost alone.

use std::fs::File;
use std::path::PathBuf;

use synchrotron_core::model::Cursor;
use synchrotron_core::store::Durability;
use tempfile::TempDir;

use crate::app::{self, BASE_NOTES, BEGIN_MS, Kind, Step};
use crate::device::Device;
use crate::error::BenchError;

/// When measuring begins: after every action of every history.
pub(crate) const MEASURE_MS: i64 = BEGIN_MS + 10_000_000;

/// The databases of one run of benchmarks.
#[derive(Debug)]
pub(crate) struct Histories {
    folder: TempDir,
}

/// A database of its own; it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Database {
    folder: TempDir,
}

impl Histories {
    /// Makes a database for each of these lengths, shortest first.
    pub(crate) fn make(lengths: &[u32]) -> Result<Self, BenchError> {
        let histories = Self { folder: tempfile::tempdir()? };
        let growing = histories.folder.path().join("growing.db");
        let base = (0..BASE_NOTES).map(Step::base);
        Device::open(&growing, Durability::Normal)?.integrate(app::pages(base, Cursor::START))?;
        let mut had = 0;
        for length in lengths {
            let mut device = Device::open(&growing, Durability::Normal)?;
            let cursor = device.cursor()?;
            let renames =
                (had..*length).map(|number| Step::new(Kind::Rename, number, BEGIN_MS + 1 + i64::from(number)));
            device.integrate(app::pages(renames, cursor))?;
            had = *length;
            // Closing the last connection moves the WAL into the file.
            drop(device);
            std::fs::copy(&growing, histories.made(*length))?;
        }
        Ok(histories)
    }

    fn made(&self, length: u32) -> PathBuf {
        self.folder.path().join(format!("history-{length}.db"))
    }

    /// A fresh copy of the database with a history of this length, synced to disk.
    pub(crate) fn copy(&self, length: u32) -> Result<Database, BenchError> {
        let database = Database { folder: tempfile::tempdir_in(&self.folder)? };
        std::fs::copy(self.made(length), database.path())?;
        File::open(database.path())?.sync_all()?;
        Ok(database)
    }
}

impl Database {
    /// The database file.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }
}
