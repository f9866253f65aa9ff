//! What calls found out about one carrier.

use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;

use super::FailoverPauses;
use crate::network::Carrier;

/// Up until a call fails, then down until one is answered.
#[derive(Debug, Default)]
pub(super) struct Health {
    down: Mutex<Option<Down>>,
}

#[derive(Debug, Clone, Copy)]
struct Down {
    failures: u32,
    /// Until when it is left alone.
    until: Instant,
    /// What the carrier said of itself when it failed.
    said: Carrier,
}

impl Down {
    /// It knew that it was away, and now says that it is back.
    fn is_back(&self, says: Carrier) -> bool {
        self.said == Carrier::Offline && says != Carrier::Offline
    }
}

impl Health {
    /// Whether a call should try it before those that rest.
    pub(super) fn is_ready(&self, says: Carrier) -> bool {
        self.down().is_none_or(|down| down.is_back(says) || down.until <= Instant::now())
    }

    /// Whether it is believed to work.
    pub(super) fn is_up(&self, says: Carrier) -> bool {
        self.down().is_none_or(|down| down.is_back(says))
    }

    pub(super) fn answered(&self) {
        *self.down() = None;
    }

    pub(super) fn failed(&self, says: Carrier, pauses: FailoverPauses) {
        let mut down = self.down();
        let failures = down.map_or(0, |down| down.failures).saturating_add(1);
        let until = Instant::now() + pauses.after(failures);
        *down = Some(Down { failures, until, said: says });
    }

    fn down(&self) -> MutexGuard<'_, Option<Down>> {
        self.down.lock().expect("BUG: nothing panics while it holds a carrier's health")
    }
}

impl FailoverPauses {
    /// The pause after this many failures in a row.
    pub(super) fn after(self, failures: u32) -> std::time::Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PAUSES: FailoverPauses = FailoverPauses { first: Duration::from_secs(1), longest: Duration::from_secs(5) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [1, 2, 3, 4, u32::MAX].map(|failures| PAUSES.after(failures).as_secs());
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_carrier_rests_and_is_up_again_when_it_answers() {
        let health = Health::default();
        health.failed(Carrier::Nats, PAUSES);
        assert!(!health.is_ready(Carrier::Nats));
        tokio::time::advance(PAUSES.first).await;
        assert!(health.is_ready(Carrier::Nats), "the pause is over");
        assert!(!health.is_up(Carrier::Nats), "but nothing was answered");
        health.answered();
        assert!(health.is_up(Carrier::Nats));
    }

    #[tokio::test(start_paused = true)]
    async fn a_carrier_that_says_it_is_back_is_tried_at_once() {
        let health = Health::default();
        health.failed(Carrier::Offline, PAUSES);
        assert!(!health.is_ready(Carrier::Offline));
        assert!(health.is_ready(Carrier::Nats) && health.is_up(Carrier::Nats));
    }
}
