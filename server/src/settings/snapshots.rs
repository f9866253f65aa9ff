//! What devices that read whole audiences may cost.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SettingsError, seconds};

/// Bounds of snapshots and digests. Each one that goes on holds a connection to Postgres, of a pool of their own: however
/// many there are, uploads find theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSettings {
    /// How many snapshots go on at once in this process; more are told to come back.
    pub open_max: u32,
    /// How many of them may be one user's.
    pub open_per_user_max: u32,
    /// How many digests are made at once in this process; more are told to come back.
    pub digests_max: u32,
    /// How long a snapshot waits for its device to ask for the next chunk.
    #[serde(rename = "idle_seconds_max", with = "seconds")]
    pub idle_max: Duration,
    /// How long a snapshot may go on: while it does, Postgres keeps the old versions of all rows.
    #[serde(rename = "age_seconds_max", with = "seconds")]
    pub age_max: Duration,
    /// The size at which a chunk ends, in bytes before it is compressed. A chunk has at least one row, whatever its size.
    pub chunk_bytes_max: usize,
    /// How many ids a device may ask about.
    pub ids_max: usize,
}

impl Default for SnapshotSettings {
    fn default() -> Self {
        Self {
            open_max: 16,
            open_per_user_max: 4,
            digests_max: 4,
            idle_max: Duration::from_secs(60),
            age_max: Duration::from_secs(30 * 60),
            chunk_bytes_max: 256 << 10,
            ids_max: 20_000,
        }
    }
}

impl SnapshotSettings {
    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let bounds = [
            ("snapshots.open_max", u64::from(self.open_max)),
            ("snapshots.open_per_user_max", u64::from(self.open_per_user_max)),
            ("snapshots.digests_max", u64::from(self.digests_max)),
            ("snapshots.idle_seconds_max", u64::try_from(self.idle_max.as_millis()).unwrap_or(u64::MAX)),
            ("snapshots.age_seconds_max", u64::try_from(self.age_max.as_millis()).unwrap_or(u64::MAX)),
            ("snapshots.chunk_bytes_max", self.chunk_bytes_max as u64),
        ];
        match bounds.into_iter().find(|(_, actual)| *actual == 0) {
            Some((setting, actual)) => Err(SettingsError::TooSmall { setting, actual, min: 1 }),
            None => Ok(()),
        }
    }
}
