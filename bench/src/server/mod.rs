//! The server's benchmarks: one file each. All of them on one durable Postgres, which serves the floors too.

pub(crate) mod floor;
mod ingest;
mod late;
mod reading;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use self::stage::Stage;
use crate::Measure;
use crate::error::BenchError;
use crate::report::Entry;
use crate::rounds::Rounds;

/// How much of everything.
#[derive(Debug)]
struct Sizes {
    /// Actions of one turn of ingest, about.
    ingests: u32,
    /// Later actions that a late one arrives beneath, fewest first.
    histories: Vec<u32>,
    /// Actions that are fetched.
    fetched: u32,
    /// Rows of a snapshot.
    snapshot_rows: u32,
}

impl Sizes {
    fn full() -> Self {
        Self { ingests: 4_000, histories: vec![1_000, 10_000, 100_000], fetched: 10_000, snapshot_rows: 1_000_000 }
    }

    fn quick() -> Self {
        Self { ingests: 200, histories: vec![50, 500], fetched: 700, snapshot_rows: 5_000 }
    }
}

/// What every benchmark gets.
#[derive(Debug)]
struct Bench {
    sizes: Sizes,
    rounds: Rounds,
    runtime: Runtime,
    stage: Arc<Stage>,
}

type Run = fn(&Bench) -> Result<Vec<Entry>, BenchError>;

const ALL: [(&str, Run); 4] =
    [("ingest", ingest::run), ("late", late::run), ("fetch", reading::fetch), ("snapshot", reading::snapshot)];

/// Runs the benchmarks that the filter names.
pub(crate) fn run(measure: &Measure) -> Result<Vec<Entry>, BenchError> {
    let sizes = if measure.quick { Sizes::quick() } else { Sizes::full() };
    let runtime = Runtime::new()?;
    let stage = Arc::new(runtime.block_on(Stage::open())?);
    let bench = Bench { sizes, rounds: measure.rounds, runtime, stage };
    let mut entries = Vec::new();
    for (_, run) in ALL.iter().filter(|(name, _)| name.contains(&measure.filter)) {
        bench.runtime.block_on(bench.stage.execute("CHECKPOINT".to_owned()))?;
        entries.extend(run(&bench)?);
    }
    Ok(entries)
}

/// Microseconds for each of so many.
fn micros_each(time: Duration, count: u32) -> f64 {
    time.as_secs_f64() * 1e6 / f64::from(count)
}
