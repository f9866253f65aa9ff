//! The client's benchmarks: one file each.

mod execute;
mod integrate;
pub(crate) mod memory;
mod reconcile;

use std::time::Duration;

use crate::Measure;
use crate::error::BenchError;
use crate::history::Histories;
use crate::report::Entry;
use crate::rounds::Rounds;

/// How much of everything.
#[derive(Debug)]
struct Sizes {
    /// Lengths of history, 0 first.
    histories: Vec<u32>,
    /// Own actions in a row before the next runner takes its turn, and turns in a round.
    executes: u32,
    turns: u32,
    /// Remote actions that are integrated.
    integrates: u32,
    /// Pending and remote actions, reconciled after each history.
    reconciled: (u32, u32),
    /// The same, many, after no history.
    reconciled_many: (u32, u32),
}

impl Sizes {
    fn full() -> Self {
        Self {
            histories: vec![0, 10_000, 100_000],
            executes: 100,
            turns: 10,
            integrates: 10_000,
            reconciled: (100, 1_000),
            reconciled_many: (1_000, 10_000),
        }
    }

    fn quick() -> Self {
        Self {
            histories: vec![0, 1_000],
            executes: 5,
            turns: 1,
            integrates: 600,
            reconciled: (5, 50),
            reconciled_many: (10, 600),
        }
    }
}

/// What every benchmark gets.
#[derive(Debug)]
struct Bench {
    sizes: Sizes,
    rounds: Rounds,
    histories: Histories,
}

type Run = fn(&Bench) -> Result<Vec<Entry>, BenchError>;

const ALL: [(&str, Run); 5] = [
    ("execute_insert", execute::insert),
    ("execute_update", execute::update),
    ("integrate", integrate::run),
    ("reconcile", reconcile::run),
    ("memory", memory::run),
];

/// Runs the benchmarks that the filter names.
pub(crate) fn run(measure: &Measure) -> Result<Vec<Entry>, BenchError> {
    let sizes = if measure.quick { Sizes::quick() } else { Sizes::full() };
    let histories = Histories::make(&sizes.histories)?;
    let bench = Bench { sizes, rounds: measure.rounds, histories };
    let mut entries = Vec::new();
    for (_, run) in ALL.iter().filter(|(name, _)| name.contains(&measure.filter)) {
        entries.extend(run(&bench)?);
    }
    Ok(entries)
}

/// Microseconds for each of so many.
fn micros_each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
