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

/// The same, where none at all means never.
pub(crate) mod or_never {
    use super::{Deserializer, Duration, Serializer};

    /// Reads a number of seconds; 0 is never.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(seconds: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(seconds).map(|duration| Some(duration).filter(|duration| !duration.is_zero()))
    }

    /// Writes a number of seconds; 0 is never.
    pub(crate) fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        super::serialize(&duration.unwrap_or_default(), serializer)
    }
}
