//! How much one user may have of what all share: so much at once, and so much in a second.
//!
//! Place in the journey: before an upload waits, before a request is read, before a device listens or begins a snapshot. Whoever takes
//! more than its share is told when to come back.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use synchrotron_core::model::UserId;

/// What a user may send at once, in seconds of its rate.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).expect("BUG: not zero");
/// With more users than this in mind, those who have been quiet are forgotten.
const USERS_MAX: usize = 10_000;
/// When a user may come back who has its full share at present.
const FULL_SHARE_AFTER: Duration = Duration::from_millis(500);

/// What each user has at present, and what it has taken lately.
#[derive(Debug)]
pub(crate) struct UserLimits {
    shares: Arc<Shares>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    limiter: DefaultKeyedRateLimiter<UserId>,
    burst: NonZeroU32,
}

impl UserLimits {
    /// So many at once of each user; and a rate of so much per second, with bursts of [`BURST_SECONDS`]; `None` or 0 for
    /// no such limit.
    pub(crate) fn new(at_once_max: usize, per_second: Option<u32>) -> Self {
        let rate = per_second.and_then(NonZeroU32::new).map(|rate| {
            let burst = rate.saturating_mul(BURST_SECONDS);
            Rate { limiter: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)), burst }
        });
        Self { shares: Arc::new(Shares { max: at_once_max, counts: Mutex::default() }), rate }
    }

    /// A share for something that costs so much of the rate, or how long the user is to stay away.
    pub(crate) fn admit(&self, user_id: &UserId, cost: usize) -> Result<Share, Duration> {
        let share = Shares::take(&self.shares, user_id).ok_or(FULL_SHARE_AFTER)?;
        match &self.rate {
            Some(rate) => rate.admit(user_id, cost).map(|()| share),
            None => Ok(share),
        }
    }
}

impl Rate {
    fn admit(&self, user_id: &UserId, cost: usize) -> Result<(), Duration> {
        let cost = u32::try_from(cost).unwrap_or(u32::MAX);
        // What costs more than a burst costs one: else it could never be had.
        let Some(cost) = NonZeroU32::new(cost).map(|cost| cost.min(self.burst)) else { return Ok(()) };
        if self.limiter.len() > USERS_MAX {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key_n(user_id, cost).expect("BUG: no cost is above the burst") {
            Ok(()) => Ok(()),
            Err(not_until) => Err(not_until.wait_time_from(DefaultClock::default().now())),
        }
    }
}

/// How many shares each user has.
#[derive(Debug)]
struct Shares {
    max: usize,
    counts: Mutex<HashMap<UserId, usize>>,
}

impl Shares {
    fn take(shares: &Arc<Self>, user_id: &UserId) -> Option<Share> {
        let mut counts = shares.counts();
        let count = counts.entry(user_id.clone()).or_default();
        if *count >= shares.max {
            return None;
        }
        *count += 1;
        Some(Share { user_id: user_id.clone(), shares: Arc::clone(shares) })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<UserId, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of its user's shares, for as long as it is held.
#[derive(Debug)]
pub(crate) struct Share {
    user_id: UserId,
    shares: Arc<Shares>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut counts = self.shares.counts();
        if let Some(count) = counts.get_mut(&self.user_id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.user_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).expect("ok")
    }

    #[test]
    fn a_user_has_its_share_and_nobody_elses() {
        let limits = UserLimits::new(2, None);
        let first = limits.admit(&user("a"), 1).expect("room");
        let _second = limits.admit(&user("a"), 1).expect("room");
        assert_eq!(limits.admit(&user("a"), 1).err(), Some(FULL_SHARE_AFTER));
        let _other = limits.admit(&user("b"), 1).expect("its own share");
        drop(first);
        let _again = limits.admit(&user("a"), 1).expect("room again");
    }

    #[test]
    fn too_much_in_a_second_is_told_when_to_come_back() {
        let limits = UserLimits::new(256, Some(10));
        drop(limits.admit(&user("a"), 1_000).expect("one burst, however large"));
        let wait = limits.admit(&user("a"), 10).expect_err("too soon");
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1), "{wait:?}");
        drop(limits.admit(&user("b"), 10).expect("not its fault"));
    }
}
