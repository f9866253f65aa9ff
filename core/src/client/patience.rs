//! Patience with a busy server: it is asked again, ever more rarely, before anybody hears of it.
//!
//! A thousand devices that come back at once are more than a server serves at once; those that it puts off are no failures.
//! One that puts off for long is in trouble, and then the status says so.

use std::time::Duration;

use rand::Rng;

use super::backoff::Backoff;

/// How often in a row a server may say that it is busy.
const TIMES_MAX: u32 = 6;

/// One series of answers that the server is busy.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    times: u32,
}

impl Patience {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self { backoff, times: 0 }
    }

    /// How long to wait after one more such answer, at least as long as it says; `None` if patience is over.
    pub(super) fn wait(&mut self, asked: Duration) -> Option<Duration> {
        self.times += 1;
        let wait = self.backoff.next().max(asked.mul_f64(rand::rng().random_range(1.0..1.5)));
        (self.times <= TIMES_MAX).then_some(wait)
    }

    /// The series is over.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
        self.times = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_as_long_as_it_is_asked_to_and_ends() {
        let asked = Duration::from_secs(3);
        let mut patience = Patience::new(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)));
        for _series in 0..2 {
            for _time in 0..TIMES_MAX {
                let wait = patience.wait(asked).expect("patience");
                assert!((asked..=asked * 3 / 2).contains(&wait), "{wait:?}");
            }
            assert_eq!(patience.wait(asked), None);
            patience.reset();
        }
    }
}
