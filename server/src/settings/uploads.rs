//! What uploads may cost, and how many share a transaction.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SettingsError, millis};

/// How uploads wait, and how they are taken together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UploadSettings {
    /// How many transactions work on uploads at once. Each takes all uploads that wait when it begins.
    pub workers: u32,
    /// The most uploads in one transaction.
    pub group_uploads_max: usize,
    /// A transaction takes no further upload when it has this many records.
    pub group_records_max: usize,
    /// How long a worker waits for a lock that somebody else holds, before each upload of its transaction is tried alone;
    /// and how long that waits.
    #[serde(rename = "group_lock_within_ms", with = "millis")]
    pub group_lock_within: Duration,
    /// How long an upload that met a lock alone waits for it when it is tried again.
    #[serde(rename = "lock_within_ms", with = "millis")]
    pub lock_within: Duration,
    /// How many uploads are tried alone at once; and how many of those that met a lock alone.
    pub alone_max: u32,
    /// The most uploads that wait; more are told to come back.
    pub waiting_max: usize,
    /// The most uploads of one user that wait.
    pub waiting_per_user_max: usize,
    /// The most records per second of one user, over all of its devices; short bursts of ten times as many are taken.
    /// `None` for no limit.
    pub records_per_second_per_user: Option<u32>,
}

impl Default for UploadSettings {
    fn default() -> Self {
        Self {
            workers: 4,
            group_uploads_max: 256,
            group_records_max: 4_096,
            group_lock_within: Duration::from_millis(250),
            lock_within: Duration::from_secs(10),
            alone_max: 2,
            waiting_max: 4_096,
            waiting_per_user_max: 256,
            records_per_second_per_user: None,
        }
    }
}

impl UploadSettings {
    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bounds = [
            ("uploads.workers", u64::from(self.workers)),
            ("uploads.group_uploads_max", self.group_uploads_max as u64),
            ("uploads.group_records_max", self.group_records_max as u64),
            ("uploads.group_lock_within_ms", millis(self.group_lock_within)),
            ("uploads.lock_within_ms", millis(self.lock_within)),
            ("uploads.alone_max", u64::from(self.alone_max)),
            ("uploads.waiting_max", self.waiting_max as u64),
            ("uploads.waiting_per_user_max", self.waiting_per_user_max as u64),
            ("uploads.records_per_second_per_user", self.records_per_second_per_user.map_or(1, u64::from)),
        ];
        match bounds.into_iter().find(|(_, actual)| *actual == 0) {
            Some((setting, actual)) => Err(SettingsError::TooSmall { setting, actual, min: 1 }),
            None => Ok(()),
        }
    }
}
