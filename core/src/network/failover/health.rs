//! What is known of one carrier: whether calls go there, and since when or until when not.
//!
//! ```text
//!            fails            answers a probe            answers, and the proof is over
//! Trusted ───────────▶ Resting ───────────▶ Proving ───────────────────────────────▶ Trusted
//!                         ▲    fails           │
//!                         └────────────────────┘
//! ```
//!
//! Times and random numbers come in as values; nothing here waits or asks.
//!
//! # Invariants
//! - One failure is enough to leave a carrier; one answer is not enough to return to it.
//! - A carrier that keeps failing is asked ever more rarely, and one that comes and goes has to prove itself for ever
//!   longer, both up to [`FailoverPauses::longest`]. A while of trust without trouble forgives what was before.

use std::time::Duration;

use tokio::time::Instant;

use super::FailoverPauses;
use crate::network::{Carrier, CarrierTrouble};

/// When something happened, and a random number between 0 and 1 that what follows is spread by: devices that lose a
/// carrier together do not come back together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) jitter: f64,
}

/// How good a choice a carrier is, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Trusted,
    /// It answers again. Calls go elsewhere until it has done so for a while.
    Proving,
    /// It failed, and its rest is over.
    Rested,
    /// It failed, and is left alone.
    Resting,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Trusted { since: Instant },
    Resting { until: Instant },
    Proving { until: Instant },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Health {
    pauses: FailoverPauses,
    state: State,
    /// Failures since it answered last.
    failures: u32,
    /// How often it failed after it had answered, since it was last forgiven.
    relapses: u32,
    trouble: Option<CarrierTrouble>,
    /// Whether it was ever connected: before that, being away is no trouble but the beginning.
    seen: bool,
}

impl Health {
    pub(super) fn new(pauses: FailoverPauses, now: Instant) -> Self {
        Self { pauses, state: State::Trusted { since: now }, failures: 0, relapses: 0, trouble: None, seen: false }
    }

    pub(super) fn standing(&self, now: Instant) -> Standing {
        match self.state {
            State::Trusted { .. } => Standing::Trusted,
            State::Proving { .. } => Standing::Proving,
            State::Resting { until } if until <= now => Standing::Rested,
            State::Resting { .. } => Standing::Resting,
        }
    }

    /// What last went wrong, until it is trusted again.
    pub(super) fn trouble(&self) -> Option<CarrierTrouble> {
        self.trouble
    }

    /// Whether it is time to ask it something.
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        match self.state {
            State::Trusted { .. } => false,
            State::Resting { until } | State::Proving { until } => until <= now,
        }
    }

    /// Takes note of what the carrier says of its own connection.
    pub(super) fn says(&mut self, carrier: Carrier, at: Moment) {
        if carrier != Carrier::Offline {
            self.seen = true;
        } else if self.seen && !matches!(self.state, State::Resting { .. }) {
            self.failed(CarrierTrouble::Disconnected, at);
        }
    }

    pub(super) fn failed(&mut self, trouble: CarrierTrouble, at: Moment) {
        match self.state {
            State::Trusted { since } if at.now.duration_since(since) >= self.pauses.longest => self.relapses = 1,
            State::Trusted { .. } | State::Proving { .. } => self.relapses = self.relapses.saturating_add(1),
            State::Resting { .. } => {}
        }
        self.failures = self.failures.saturating_add(1);
        self.trouble = Some(trouble);
        let rest = self.pauses.after(self.failures.max(self.relapses));
        self.state = State::Resting { until: at.now + rest.mul_f64(0.5 + at.jitter / 2.0) };
    }

    pub(super) fn answered(&mut self, at: Moment) {
        self.failures = 0;
        match self.state {
            State::Trusted { .. } => {}
            State::Resting { .. } => {
                let proof = self.pauses.after(self.relapses);
                self.state = State::Proving { until: at.now + proof.mul_f64(1.0 + at.jitter / 2.0) };
            }
            State::Proving { until } if until <= at.now => {
                self.trouble = None;
                self.state = State::Trusted { since: at.now };
            }
            State::Proving { .. } => {}
        }
    }
}

impl FailoverPauses {
    /// The pause after this many failures.
    pub(super) fn after(self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: FailoverPauses = FailoverPauses { first: Duration::from_secs(1), longest: Duration::from_secs(5) };

    /// A carrier that is connected, and a clock.
    struct Watched {
        health: Health,
        now: Instant,
    }

    impl Watched {
        fn new() -> Self {
            let now = Instant::now();
            let mut watched = Self { health: Health::new(PAUSES, now), now };
            watched.health.says(Carrier::Nats, watched.at());
            watched
        }

        /// Without jitter, so that rests are half and proofs are whole.
        fn at(&self) -> Moment {
            Moment { now: self.now, jitter: 0.0 }
        }

        fn fails(&mut self) {
            self.health.failed(CarrierTrouble::Unavailable, self.at());
        }

        fn answers(&mut self) {
            self.health.answered(self.at());
        }

        /// How long until it is to be asked.
        fn pause(&mut self) -> Duration {
            let began = self.now;
            while !self.health.wants_probe(self.now) {
                self.now += Duration::from_millis(100);
            }
            self.now - began
        }

        fn standing(&self) -> Standing {
            self.health.standing(self.now)
        }
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses = [0, 1, 2, 3, 4, u32::MAX].map(|failures| PAUSES.after(failures).as_secs());
        assert_eq!(pauses, [1, 1, 2, 4, 5, 5]);
    }

    #[test]
    fn one_failure_ends_trust_and_only_two_answers_with_a_while_between_bring_it_back() {
        let mut carrier = Watched::new();
        assert_eq!(carrier.standing(), Standing::Trusted);
        carrier.fails();
        assert_eq!(carrier.standing(), Standing::Resting);
        carrier.pause();
        assert_eq!(carrier.standing(), Standing::Rested);
        carrier.answers();
        carrier.answers();
        assert_eq!(carrier.standing(), Standing::Proving);
        assert_eq!(carrier.health.trouble(), Some(CarrierTrouble::Unavailable));
        assert!(carrier.pause() >= PAUSES.first);
        assert_eq!(carrier.standing(), Standing::Proving, "nobody has asked it again");
        carrier.answers();
        assert_eq!(carrier.standing(), Standing::Trusted);
        assert_eq!(carrier.health.trouble(), None);
    }

    #[test]
    fn one_that_keeps_failing_is_asked_ever_more_rarely() {
        let mut carrier = Watched::new();
        let rests: Vec<u128> = (0..6)
            .map(|_| {
                carrier.fails();
                carrier.pause().as_millis()
            })
            .collect();
        assert_eq!(rests, [500, 1000, 2000, 2500, 2500, 2500]);
    }

    #[test]
    fn one_that_comes_and_goes_proves_itself_for_ever_longer_until_it_is_forgiven() {
        let mut carrier = Watched::new();
        let relapse = |carrier: &mut Watched| {
            carrier.fails();
            carrier.pause();
            carrier.answers();
            let proof = carrier.pause().as_secs();
            carrier.answers();
            assert_eq!(carrier.standing(), Standing::Trusted);
            proof
        };
        assert_eq!([(); 5].map(|()| relapse(&mut carrier)), [1, 2, 4, 5, 5]);
        carrier.now += PAUSES.longest;
        assert_eq!(relapse(&mut carrier), 1);
    }

    #[test]
    fn jitter_spreads_rests_and_proofs() {
        let spread = |jitter| {
            let mut carrier = Watched::new();
            carrier.health.failed(CarrierTrouble::Unavailable, Moment { now: carrier.now, jitter });
            let rest = carrier.pause();
            carrier.health.answered(Moment { now: carrier.now, jitter });
            (rest.as_millis(), carrier.pause().as_millis())
        };
        assert_eq!(spread(0.0), (500, 1000));
        assert_eq!(spread(1.0), (1000, 1500));
    }

    #[test]
    fn a_lost_connection_is_trouble_but_one_that_never_was_is_not() {
        let mut carrier = Watched::new();
        carrier.health.says(Carrier::Offline, carrier.at());
        assert_eq!(carrier.standing(), Standing::Resting);
        assert_eq!(carrier.health.trouble(), Some(CarrierTrouble::Disconnected));

        let now = Instant::now();
        let mut connecting = Health::new(PAUSES, now);
        connecting.says(Carrier::Offline, Moment { now, jitter: 0.0 });
        assert_eq!(connecting.standing(now), Standing::Trusted);
    }
}
