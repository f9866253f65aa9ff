//! End to end: devices, NATS, the server and Postgres, each a process of its own, on loopback. One file each.

mod app;
pub(crate) mod backlog;
mod bytes;
mod fanout;
mod floor;
mod idle;
mod latency;
pub(crate) mod serve;
mod stage;
mod storm;
mod watched;

use std::time::Duration;

use tokio::runtime::Runtime;

use crate::Measure;
use crate::error::BenchError;
use crate::report::Entry;
use crate::rounds::Rounds;

/// How many devices connect at once where that is not what is measured.
const CONNECTING_MAX: usize = 32;

/// How much of everything.
#[derive(Debug)]
struct Sizes {
    /// Actions of one round of latency, by NATS and by HTTP.
    actions: usize,
    actions_by_http: usize,
    /// Subscribed devices, and actions to all of them in a round.
    listeners: Vec<u32>,
    fan_outs: u32,
    /// Idle devices, and how long servers get to come to rest.
    idle: Vec<u32>,
    rest: Duration,
    /// Own and others' actions of a device that was away.
    backlog: (u32, u32),
    /// Devices that come back at once.
    storm: u32,
    /// Whether each round of what takes seconds is made.
    all_rounds: bool,
}

impl Sizes {
    fn full() -> Self {
        Self {
            actions: 200,
            actions_by_http: 10,
            listeners: vec![10, 100, 1_000],
            fan_outs: 10,
            idle: vec![1_000, 10_000],
            rest: Duration::from_secs(3),
            backlog: (10_000, 1_000),
            storm: 1_000,
            all_rounds: true,
        }
    }

    fn quick() -> Self {
        Self {
            actions: 3,
            actions_by_http: 1,
            listeners: vec![3],
            fan_outs: 1,
            idle: vec![50],
            rest: Duration::from_millis(200),
            backlog: (300, 20),
            storm: 5,
            all_rounds: false,
        }
    }
}

/// What every benchmark gets. Each makes its own servers: what one leaves in their memory is not another's.
#[derive(Debug)]
struct Bench {
    sizes: Sizes,
    rounds: Rounds,
    runtime: Runtime,
}

impl Bench {
    /// Rounds of what takes seconds.
    fn long_rounds(&self) -> u32 {
        if self.sizes.all_rounds { self.rounds.count() } else { 1 }
    }
}

type Run = fn(&Bench) -> Result<Vec<Entry>, BenchError>;

const ALL: [(&str, Run); 6] = [
    ("latency", latency::run),
    ("fanout", fanout::run),
    ("idle", idle::run),
    ("bytes", bytes::run),
    ("backlog", backlog::run),
    ("storm", storm::run),
];

/// Runs the benchmarks that the filter names.
pub(crate) fn run(measure: &Measure) -> Result<Vec<Entry>, BenchError> {
    let sizes = if measure.quick { Sizes::quick() } else { Sizes::full() };
    // A connection is a file, here and in the servers, which inherit this.
    rlimit::increase_nofile_limit(u64::MAX)?;
    let bench = Bench { sizes, rounds: measure.rounds, runtime: Runtime::new()? };
    let mut entries = Vec::new();
    for (_, run) in ALL.iter().filter(|(name, _)| name.contains(&measure.filter)) {
        entries.extend(run(&bench)?);
    }
    Ok(entries)
}
