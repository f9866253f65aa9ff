//! How long what is over is kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SettingsError, millis, seconds};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What compaction deletes, and how gently. All ages are by the clock of Postgres.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompactionSettings {
    /// How long records stay in the log. A device that was away for longer takes a snapshot. `None`, or zero, keeps them
    /// for ever.
    #[serde(rename = "retention_seconds", with = "seconds::or_never")]
    pub retention: Option<Duration>,
    /// How long the ids of deleted records are remembered: a device that missed the answer to an upload may send it again
    /// for so long, and it is not done twice. Devices that were not seen for so long are forgotten.
    #[serde(rename = "ids_kept_seconds", with = "seconds")]
    pub ids_kept: Duration,
    /// How long rejections of uploads are kept; one that comes again later is judged afresh. What was accepted is found from
    /// the log, or from the ids.
    #[serde(rename = "outcomes_kept_seconds", with = "seconds")]
    pub outcomes_kept: Duration,
    /// How long slices wait for a carrier; later, readers fetch what was in them. Without NATS nobody takes them.
    #[serde(rename = "outbox_kept_seconds", with = "seconds")]
    pub outbox_kept: Duration,
    /// How often to look.
    #[serde(rename = "every_seconds", with = "seconds")]
    pub every: Duration,
    /// How many records one transaction deletes at most; it holds the heads of their audiences meanwhile.
    pub batch_records: u32,
    /// How long to wait between two transactions.
    #[serde(rename = "pause_ms", with = "millis")]
    pub pause: Duration,
    /// How long to wait for a head that an upload holds, before trying again later.
    #[serde(rename = "lock_within_ms", with = "millis")]
    pub lock_within: Duration,
}

impl Default for CompactionSettings {
    fn default() -> Self {
        Self {
            retention: Some(14 * DAY),
            ids_kept: 365 * DAY,
            outcomes_kept: 14 * DAY,
            outbox_kept: DAY,
            every: Duration::from_secs(60 * 60),
            batch_records: 1_000,
            pause: Duration::from_millis(50),
            lock_within: Duration::from_millis(250),
        }
    }
}

impl CompactionSettings {
    /// How long records stay in the log, if not for ever.
    #[must_use]
    pub fn retention(&self) -> Option<Duration> {
        self.retention.filter(|retention| !retention.is_zero())
    }

    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let secs = |duration: Duration| duration.as_secs();
        let kept = secs(self.retention().unwrap_or_default());
        let bounds = [
            ("compaction.ids_kept_seconds", secs(self.ids_kept), kept),
            ("compaction.every_seconds", secs(self.every), 1),
            ("compaction.batch_records", u64::from(self.batch_records), 1),
            ("compaction.lock_within_ms", millis(self.lock_within), 1),
        ];
        match bounds.into_iter().find(|(_, actual, min)| actual < min) {
            Some((setting, actual, min)) => Err(SettingsError::TooSmall { setting, actual, min }),
            None => Ok(()),
        }
    }
}
