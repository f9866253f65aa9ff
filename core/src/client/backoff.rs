//! Waiting longer after each failure, with full jitter.
//!
//! Source: "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): a random wait between nothing and a doubling
//! bound spreads a thousand clients that come back at once.

use std::time::Duration;

use rand::Rng;

/// The waits of one series of failures.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, failures: 0 }
    }

    /// The series is over.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// How long to wait after one more failure.
    pub(super) fn next(&mut self) -> Duration {
        let bound = self.bound();
        self.failures += 1;
        rand::rng().random_range(Duration::ZERO..=bound)
    }

    fn bound(&self) -> Duration {
        self.first.saturating_mul(2_u32.saturating_pow(self.failures.min(16))).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_double_up_to_the_maximum_and_start_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let bounds: Vec<u128> = (0..6)
            .map(|_| {
                let bound = backoff.bound();
                assert!(backoff.next() <= bound);
                bound.as_millis()
            })
            .collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.bound(), Duration::from_millis(100));
    }
}
