//! What a run can fail by.

use std::fmt;

/// Which promise was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FailureKind {
    /// An executed action is neither in the server's log, nor pending, nor in quarantine.
    Lost,
    /// A device's rows are not the fold of what it has.
    Rows,
    /// A device holds something of an audience that its user is not in.
    Leak,
    /// The device has records that its cursors do not cover, or lacks some that they do.
    Log,
    /// A rule of the app does not hold.
    Rule,
    /// Undoing history from its end does not give the rows that were there.
    Undo,
    /// The fleet does not come to rest, or moves again without cause.
    FixedPoint,
    /// An action's fate is not what became of it.
    Fate,
    /// The doctor complains.
    Doctor,
    /// A step returned an error that nothing in the plan explains.
    Alarm,
    /// Something panicked.
    Panic,
}

/// A promise was broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Which promise.
    pub kind: FailureKind,
    /// On which device, if on one.
    pub device: Option<usize>,
    /// The step that it showed after; `None` at rest.
    pub step: Option<usize>,
    /// What was found, and what was expected.
    pub what: String,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, device: impl Into<Option<usize>>, what: impl Into<String>) -> Self {
        Self { kind, device: device.into(), step: None, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(device) = self.device {
            write!(f, " on device {device}")?;
        }
        match self.step {
            Some(step) => write!(f, " after step {step}: {}", self.what),
            None => write!(f, " at rest: {}", self.what),
        }
    }
}
