//! Which process syncs: one driver per database file, whatever number of processes have it open.
//!
//! Place in the journey: before a session. The right to sync is a lock on a file beside the database, so the operating
//! system gives it back when its holder is gone, by `kill -9` too. Others follow: they execute, and their work is
//! uploaded by the leader.
//!
//! # Invariants
//! - The lock is held by at most one [`Leadership`] of all that exist for one database.
//! - A leadership that was resigned is never taken again, also by a driver that has not noticed yet that it was stopped.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One driver's claim to sync a database.
#[derive(Debug)]
pub(super) struct Leadership {
    path: PathBuf,
    claim: Mutex<Claim>,
}

#[derive(Debug)]
enum Claim {
    Open,
    /// Closing the file releases the lock.
    Held {
        _lock: File,
    },
    Resigned,
}

impl Leadership {
    /// The claim to the database at this path. Its lock file is `<database>.sync`; it is left in place for good, since
    /// removing a lock file lets two processes lock two files of one name.
    pub(super) fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push(".sync");
        Self { path: path.into(), claim: Mutex::new(Claim::Open) }
    }

    /// Takes the lead, or says that another has it. Never waits.
    pub(super) fn try_take(&self) -> Result<bool, ErrorKind> {
        let mut claim = self.claim();
        match *claim {
            Claim::Held { .. } => Ok(true),
            Claim::Resigned => Ok(false),
            Claim::Open => {
                let taken = lock(&self.path).map_err(|error| error.kind())?;
                Ok(taken.is_some_and(|lock| {
                    *claim = Claim::Held { _lock: lock };
                    true
                }))
            }
        }
    }

    /// Gives the lead up, for good and at once.
    pub(super) fn resign(&self) {
        *self.claim() = Claim::Resigned;
    }

    /// Whether it was given up.
    pub(super) fn is_resigned(&self) -> bool {
        matches!(*self.claim(), Claim::Resigned)
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        // A claim changes in one assignment: a panic leaves nothing half done.
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_leads_until_it_resigns_and_never_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = folder.path().join("app.db");
        let (first, second) = (Leadership::of(&database), Leadership::of(&database));
        assert_eq!(first.try_take(), Ok(true));
        assert_eq!(first.try_take(), Ok(true), "it has it already");
        assert_eq!(second.try_take(), Ok(false));
        first.resign();
        assert_eq!(second.try_take(), Ok(true));
        drop(second);
        assert_eq!(first.try_take(), Ok(false), "a stopped driver stays stopped");
        assert_eq!(Leadership::of(&database).try_take(), Ok(true));
    }

    #[test]
    fn a_lock_file_that_cannot_be_made_is_an_error_and_no_lead() {
        let folder = tempfile::tempdir().expect("a folder");
        let leadership = Leadership::of(&folder.path().join("absent").join("app.db"));
        assert_eq!(leadership.try_take(), Err(ErrorKind::NotFound));
    }
}
