//! The switch: which call fails, and how.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::SqlError;

/// SQLite's code of a failing disk, which every injected failure carries.
const SQLITE_IOERR: i32 = 10;

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// One call fails; the next ones pass.
    Once,
    /// Everything fails from that call on, as for a process that died: disarm the switch when it is started again.
    Lasting,
    /// The process dies at that call, as by `kill -9`.
    Abort,
    /// The next commit is kept, but its answer is lost, and everything fails from then on.
    AfterCommit,
}

#[derive(Debug, Default)]
struct Armed {
    fault: Option<(u32, FaultKind)>,
    fired: bool,
    /// Whether a commit was made since this was asked last that a power cut cannot take.
    synced: bool,
}

/// Decides which call of a [`FaultyStore`](super::FaultyStore) fails. Clones are the same switch.
#[derive(Debug, Clone, Default)]
pub struct FaultSwitch(Arc<Mutex<Armed>>);

impl FaultSwitch {
    /// Lets `calls` calls pass and the next one fail. For [`FaultKind::AfterCommit`] only commits count.
    pub fn arm(&self, calls: u32, kind: FaultKind) {
        let mut armed = self.armed();
        (armed.fault, armed.fired) = (Some((calls, kind)), false);
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        let mut armed = self.armed();
        (armed.fault, armed.fired) = (None, false);
    }

    /// Whether a call has failed since the switch was armed.
    #[must_use]
    pub fn has_fired(&self) -> bool {
        self.armed().fired
    }

    /// Whether a commit was made, since this was asked last, that keeps itself, and all before it, through a power cut.
    #[must_use]
    pub fn take_synced(&self) -> bool {
        std::mem::take(&mut self.armed().synced)
    }

    /// Whether a fault is waiting for its call.
    #[must_use]
    pub fn is_armed(&self) -> bool {
        self.armed().fault.is_some()
    }

    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pass(&self) -> Result<(), SqlError> {
        let mut armed = self.armed();
        match armed.fault {
            None | Some((_, FaultKind::AfterCommit)) if !armed.fired => Ok(()),
            Some((calls, kind)) if calls > 0 => {
                armed.fault = Some((calls - 1, kind));
                Ok(())
            }
            None => Ok(()),
            Some((_, FaultKind::Abort)) => std::process::abort(),
            Some((_, kind)) => {
                armed.fired = true;
                if kind == FaultKind::Once {
                    armed.fault = None;
                }
                Err(injected())
            }
        }
    }

    /// Notes a commit, and whether it was synced.
    pub(super) fn committed(&self, synced: bool) {
        self.armed().synced |= synced;
    }

    /// Whether this commit's answer is lost.
    pub(super) fn loses_answer(&self) -> bool {
        let mut armed = self.armed();
        match armed.fault {
            Some((0, FaultKind::AfterCommit)) => {
                armed.fired = true;
                true
            }
            Some((commits, FaultKind::AfterCommit)) => {
                armed.fault = Some((commits - 1, FaultKind::AfterCommit));
                false
            }
            Some((_, FaultKind::Once | FaultKind::Lasting | FaultKind::Abort)) | None => false,
        }
    }
}

pub(super) fn injected() -> SqlError {
    SqlError::Database { code: SQLITE_IOERR, message: "disk I/O error, injected by the test".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_named_call_fails_and_no_other() {
        let switch = FaultSwitch::default();
        switch.arm(1, FaultKind::Once);
        let passes: Vec<bool> = (0..3).map(|_| switch.pass().is_ok()).collect();
        assert_eq!(passes, [true, false, true]);
        assert!(switch.has_fired());
    }

    #[test]
    fn a_dead_process_stays_dead_until_it_is_started_again() {
        let switch = FaultSwitch::default();
        switch.arm(0, FaultKind::Lasting);
        assert!(switch.pass().is_err() && switch.pass().is_err());
        switch.disarm();
        assert!(switch.pass().is_ok());
    }

    #[test]
    fn a_lost_answer_comes_after_the_commit_and_nothing_works_from_then_on() {
        let switch = FaultSwitch::default();
        switch.arm(1, FaultKind::AfterCommit);
        assert!(switch.pass().is_ok() && !switch.loses_answer());
        assert!(switch.pass().is_ok() && switch.loses_answer());
        assert!(switch.pass().is_err());
    }
}
