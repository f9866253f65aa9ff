//! Whether and how plain SQL writes reach devices.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SettingsError, millis};

/// How writes to tracked tables that come by no upload are picked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SqlWriteSettings {
    /// Whether the server puts its triggers on tracked tables; if not, it takes them off.
    pub enabled: bool,
    /// How often a process looks for committed writes, beside looking after its own commits.
    #[serde(rename = "poll_every_ms", with = "millis")]
    pub poll_every: Duration,
    /// The most row changes of one pass, which are in memory at once.
    pub batch_rows_max: u32,
}

impl Default for SqlWriteSettings {
    fn default() -> Self {
        Self { enabled: true, poll_every: Duration::from_secs(1), batch_rows_max: 500 }
    }
}

impl SqlWriteSettings {
    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let bounds = [
            ("sql_writes.poll_every_ms", u64::try_from(self.poll_every.as_millis()).unwrap_or(u64::MAX)),
            ("sql_writes.batch_rows_max", self.batch_rows_max.into()),
        ];
        match bounds.into_iter().find(|(_, actual)| *actual == 0) {
            Some((setting, actual)) => Err(SettingsError::TooSmall { setting, actual, min: 1 }),
            None => Ok(()),
        }
    }
}
