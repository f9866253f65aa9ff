//! Durations as whole milliseconds: their keys say so.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Reads a number of milliseconds.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(millis: D) -> Result<Duration, D::Error> {
    u64::deserialize(millis).map(Duration::from_millis)
}

/// Writes a number of milliseconds.
pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).serialize(serializer)
}
