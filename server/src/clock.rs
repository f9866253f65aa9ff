//! The server's wall clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The time since 1970; none on a machine whose clock is before that.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(since_1970().as_millis()).unwrap_or(i64::MAX)
}
