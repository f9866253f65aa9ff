//! Rounds: everybody who is compared runs in turn, so that a machine that slows down slows down all of them.

use std::str::FromStr;
use std::time::{Duration, Instant};

use crate::error::BenchError;

/// How many rounds a figure is the median of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rounds(u32);

impl Rounds {
    /// Fewer tell nothing.
    const MIN: u32 = 5;

    pub(crate) fn count(self) -> u32 {
        self.0
    }
}

impl std::fmt::Display for Rounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Rounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(rounds) if rounds >= Self::MIN => Ok(Self(rounds)),
            Ok(_) => Err(format!("at least {} rounds make a median", Self::MIN)),
            Err(_) => Err("not a number".to_owned()),
        }
    }
}

/// One of those who are compared: does its work once, and says how long the part took that counts.
pub(crate) type Runner<'a> = Box<dyn FnMut() -> Result<Duration, BenchError> + 'a>;

/// Times one piece of work.
pub(crate) fn timed<T>(work: impl FnOnce() -> Result<T, BenchError>) -> Result<Duration, BenchError> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// Each runner's median time for `turns` turns. In every round all runners take `turns` turns, one after the other; a
/// round before the first is not counted.
pub(crate) fn medians(rounds: Rounds, turns: u32, runners: &mut [Runner<'_>]) -> Result<Vec<Duration>, BenchError> {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); runners.len()];
    for round in 0..=rounds.0 {
        let mut sums = vec![Duration::ZERO; runners.len()];
        for _turn in 0..turns {
            for (sum, runner) in sums.iter_mut().zip(runners.iter_mut()) {
                *sum += runner()?;
            }
        }
        if round > 0 {
            times.iter_mut().zip(sums).for_each(|(times, sum)| times.push(sum));
        }
    }
    Ok(times.into_iter().map(median).collect())
}

pub(crate) fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
