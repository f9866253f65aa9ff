//! Patience with a busy server: it is asked again, ever more rarely, before anybody hears of it.
//!
//! A thousand devices that come back at once are more than a server serves at once; those that it puts off are no failures.
//! One that puts off for long is in trouble, and then the status says so.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use super::backoff::Backoff;

/// One series of answers that the server is busy.
#[derive(Debug)]
pub(super) struct Patience {
    backoff: Backoff,
    lasts: Duration,
    since: Option<Instant>,
}

impl Patience {
    /// That lasts so long from the first such answer on.
    pub(super) fn new(backoff: Backoff, lasts: Duration) -> Self {
        Self { backoff, lasts, since: None }
    }

    /// How long to wait after one more such answer, at least as long as it says; `None` if patience is over.
    pub(super) fn wait(&mut self, asked: Duration) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let wait = self.backoff.next().max(asked.mul_f64(rand::rng().random_range(1.0..1.5)));
        (since.elapsed() < self.lasts).then_some(wait)
    }

    /// The series is over.
    pub(super) fn reset(&mut self) {
        self.backoff.reset();
        self.since = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_waits_as_long_as_it_is_asked_to_and_ends() {
        let (asked, lasts) = (Duration::from_secs(3), Duration::from_secs(20));
        let mut patience = Patience::new(Backoff::new(Duration::from_millis(10), Duration::from_secs(1)), lasts);
        for _series in 0..2 {
            let begin = Instant::now();
            while let Some(wait) = patience.wait(asked) {
                assert!((asked..=asked * 3 / 2).contains(&wait), "{wait:?}");
                tokio::time::sleep(wait).await;
            }
            assert!((lasts..lasts + asked * 2).contains(&begin.elapsed()), "{:?}", begin.elapsed());
            patience.reset();
        }
    }
}
