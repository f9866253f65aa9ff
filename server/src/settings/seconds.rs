//! Durations as whole seconds: their keys say so.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads a number of seconds.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(seconds: D) -> Result<Duration, D::Error> {
    u64::deserialize(seconds).map(Duration::from_secs)
}

/// Writes a number of seconds.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    duration.as_secs().serialize(serializer)
}
