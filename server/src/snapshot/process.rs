//! Which process holds a snapshot: its id says so, to other processes that are asked for it.

use std::fmt;

use synchrotron_core::model::SnapshotId;
use uuid::Uuid;

/// One process, by a random number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessId(u64);

impl ProcessId {
    /// Another process than all before.
    pub(crate) fn new() -> Self {
        Self(random())
    }

    /// The process that holds a snapshot.
    #[must_use]
    pub const fn holding(id: SnapshotId) -> Self {
        Self(id.as_uuid().as_u64_pair().0)
    }

    /// A new snapshot of this process. Nobody can guess it.
    pub(super) fn new_snapshot(self) -> SnapshotId {
        SnapshotId::from_uuid(Uuid::from_u64_pair(self.0, random()))
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// 62 bits of randomness or more: a random UUID keeps 6 of its 128 bits for itself.
fn random() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    high.rotate_left(32) ^ low
}
