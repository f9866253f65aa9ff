//! What fetching an issuer's keys may cost, and for how long old ones may do.

use std::time::Duration;

/// Bounds on fetching a key set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JwksLimits {
    /// How long connecting may take.
    pub connect_within: Duration,
    /// How long a fetch may take as a whole.
    pub fetch_within: Duration,
    /// The largest key set that is read, in bytes.
    pub bytes_max: usize,
    /// The most keys that a set may have.
    pub keys_max: usize,
    /// How often the set is fetched though nobody asks for newer keys.
    pub refresh_every: Duration,
    /// The least time between two fetches, whoever asks.
    pub pause: Duration,
    /// For how long a set is used that cannot be renewed.
    pub stale_max: Duration,
    /// How many requests may wait for a fetch; more are told to come back.
    pub waiting_max: usize,
}

impl Default for JwksLimits {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(2),
            fetch_within: Duration::from_secs(5),
            bytes_max: 256 << 10,
            keys_max: 64,
            refresh_every: Duration::from_secs(5 * 60),
            pause: Duration::from_secs(10),
            stale_max: Duration::from_secs(60 * 60),
            waiting_max: 64,
        }
    }
}
