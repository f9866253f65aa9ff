//! How much one user may send.
//!
//! Place in the journey: before an upload waits. Whoever sends more than its share is told when to come back.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use synchrotron_core::model::UserId;

use crate::settings::UploadSettings;

/// What a user may send at once, in seconds of its rate.
const BURST_SECONDS: NonZeroU32 = NonZeroU32::new(10).expect("BUG: not zero");
/// With more users than this in mind, those who have been quiet are forgotten.
const USERS_MAX: usize = 10_000;
/// When a user may come back whose uploads wait in such numbers.
const FULL_SHARE_AFTER: Duration = Duration::from_millis(500);

/// What all users have sent.
#[derive(Debug)]
pub(super) struct Limits {
    shares: Arc<Shares>,
    rate: Option<Rate>,
}

#[derive(Debug)]
struct Rate {
    limiter: DefaultKeyedRateLimiter<UserId>,
    burst: NonZeroU32,
}

impl Limits {
    pub(super) fn new(bounds: &UploadSettings) -> Self {
        let rate = bounds.records_per_second_per_user.and_then(NonZeroU32::new).map(|rate| {
            let burst = rate.saturating_mul(BURST_SECONDS);
            Rate { limiter: RateLimiter::keyed(Quota::per_second(rate).allow_burst(burst)), burst }
        });
        Self { shares: Arc::new(Shares { max: bounds.waiting_per_user_max, counts: Mutex::default() }), rate }
    }

    /// A share of what may wait, or how long the user is to stay away.
    pub(super) fn admit(&self, user_id: &UserId, records: usize) -> Result<Share, Duration> {
        let share = Shares::take(&self.shares, user_id).ok_or(FULL_SHARE_AFTER)?;
        match &self.rate {
            Some(rate) => rate.admit(user_id, records).map(|()| share),
            None => Ok(share),
        }
    }
}

impl Rate {
    fn admit(&self, user_id: &UserId, records: usize) -> Result<(), Duration> {
        let records = u32::try_from(records).unwrap_or(u32::MAX);
        // An upload of more than a burst costs one: else it could never be taken.
        let Some(cost) = NonZeroU32::new(records).map(|records| records.min(self.burst)) else { return Ok(()) };
        if self.limiter.len() > USERS_MAX {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key_n(user_id, cost).expect("BUG: no cost is above the burst") {
            Ok(()) => Ok(()),
            Err(not_until) => Err(not_until.wait_time_from(DefaultClock::default().now())),
        }
    }
}

/// How many uploads of each user wait.
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

/// One upload's part of its user's share, for as long as it waits or is worked on.
#[derive(Debug)]
pub(super) struct Share {
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
        let limits = Limits::new(&UploadSettings { waiting_per_user_max: 2, ..UploadSettings::default() });
        let first = limits.admit(&user("a"), 1).expect("room");
        let _second = limits.admit(&user("a"), 1).expect("room");
        assert_eq!(limits.admit(&user("a"), 1).err(), Some(FULL_SHARE_AFTER));
        let _other = limits.admit(&user("b"), 1).expect("its own share");
        drop(first);
        let _again = limits.admit(&user("a"), 1).expect("room again");
    }

    #[test]
    fn too_many_records_are_told_when_to_come_back() {
        let bounds = UploadSettings { records_per_second_per_user: Some(10), ..UploadSettings::default() };
        let limits = Limits::new(&bounds);
        drop(limits.admit(&user("a"), 1_000).expect("one burst, however large"));
        let wait = limits.admit(&user("a"), 10).expect_err("too soon");
        assert!(wait > Duration::from_millis(500) && wait <= Duration::from_secs(1), "{wait:?}");
        drop(limits.admit(&user("b"), 10).expect("not its fault"));
    }
}
