//! How long what is over is kept.

use std::time::Duration;

use super::SettingsError;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What compaction deletes, and how gently. All ages are by the clock of Postgres.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompactionSettings {
    /// How long records stay in the log. A device that was away for longer takes a snapshot. `None`, or zero, keeps them
    /// for ever.
    pub retention: Option<Duration>,
    /// How long the ids of deleted records are remembered: a device that missed the answer to an upload may send it again
    /// for so long, and it is not done twice. Devices that were not seen for so long are forgotten.
    pub ids_kept: Duration,
    /// How long answers to uploads are kept; later, the same answer is found from the log.
    pub outcomes_kept: Duration,
    /// How long slices wait for a carrier; later, readers fetch what was in them. Without NATS nobody takes them.
    pub outbox_kept: Duration,
    /// How often to look.
    pub every: Duration,
    /// How many records one transaction deletes at most; it holds the heads of their audiences meanwhile.
    pub batch_records: u32,
    /// How long to wait between two transactions.
    pub pause: Duration,
    /// How long to wait for a head that an upload holds, before trying again later.
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

    /// Keeps records for so many days, their ids for longer; for ever, if it is 0.
    pub fn keep_for_days(&mut self, days: u32) {
        self.retention = (days > 0).then_some(days * DAY);
        self.ids_kept = self.ids_kept.max(days * DAY);
    }

    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let kept = millis(self.retention().unwrap_or_default());
        let bounds = [
            ("compaction.ids_kept, in milliseconds", millis(self.ids_kept), kept),
            ("compaction.every, in milliseconds", millis(self.every), 1),
            ("compaction.batch_records", u64::from(self.batch_records), 1),
            ("compaction.lock_within, in milliseconds", millis(self.lock_within), 1),
        ];
        match bounds.into_iter().find(|(_, actual, min)| actual < min) {
            Some((setting, actual, min)) => Err(SettingsError::TooSmall { setting, actual, min }),
            None => Ok(()),
        }
    }
}
