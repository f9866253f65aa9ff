//! A device that was away for a day: many pending actions of its own and many of others, and then it is online.
//!
//! The device is a process of its own, which says how much memory it ever held.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::Bench;
use super::app::{AddItem, app};
use super::idle::status_kib;
use super::stage::{Places, Stage, go_online, in_time, pass};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::median;
use crate::server::floor;

const AUDIENCE: &str = "project:1";
const USER: &str = "u0";
/// Rows in a transaction of the floor.
const FLOOR_BATCH: u32 = 100;

/// One device that comes back.
#[derive(Debug, Args)]
pub(crate) struct Away {
    database: PathBuf,
    nats: String,
    http: String,
    token: String,
    /// Own actions.
    pending: u64,
}

/// What it was like.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Back {
    /// From going online until nothing was pending.
    took_us: u64,
    /// The longest time without any progress.
    longest_gap_us: u64,
    /// The most actions that were settled in one step.
    largest_step: u64,
    steps: u64,
    /// The most memory that was held before it went online, and in all.
    away_kib: f64,
    peak_kib: f64,
}

impl Away {
    /// Works offline, goes online, and says what it was like.
    pub(crate) fn print(self) -> Result<(), BenchError> {
        let back = Runtime::new()?.block_on(self.come_back())?;
        let said = serde_json::to_string(&back).expect("BUG: numbers have a JSON form");
        Ok(writeln!(std::io::stdout(), "{said}")?)
    }

    async fn come_back(self) -> Result<Back, BenchError> {
        let client = app(&self.database, USER).open().await?;
        let places = Places { nats: self.nats, http: self.http, token: self.token };
        // It was online once, as every device was.
        go_online(&client, Arc::new(places.over_http()?)).await?;
        client.go_offline();
        for _action in 0..self.pending {
            client.execute(AddItem::to(AUDIENCE)).await?;
        }
        let away_kib = status_kib("self", "VmHWM:")?;
        let network = places.over_nats(USER, client.client_id()).await?;
        let mut status = client.status();
        let begin = Instant::now();
        let (mut last, mut longest_gap, mut largest_step, mut steps) = (begin, Duration::ZERO, 0, 0);
        let mut pending = status.borrow_and_update().pending;
        client.go_online(std::sync::Arc::new(network));
        while pending > 0 {
            in_time("progress", status.changed()).await?.map_err(|_| BenchError::Late { what: "progress" })?;
            let left = status.borrow_and_update().pending;
            if left < pending {
                longest_gap = longest_gap.max(last.elapsed());
                (last, largest_step, steps) = (Instant::now(), largest_step.max(pending - left), steps + 1);
            }
            pending = left;
        }
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (took_us, longest_gap_us) = (micros(begin.elapsed()), micros(longest_gap));
        Ok(Back { took_us, longest_gap_us, largest_step, steps, away_kib, peak_kib: status_kib("self", "VmHWM:")? })
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let (pending, others) = bench.sizes.backlog;
    if !cfg!(target_os = "linux") {
        return Ok(Vec::new());
    }
    bench.runtime.block_on(async {
        let (mut backs, mut floors) = (Vec::new(), Vec::new());
        for _round in 0..bench.long_rounds() {
            // Another history each time: a device that comes back to a long one is measured elsewhere.
            let stage = Stage::open().await?;
            stage.admit(2, AUDIENCE).await?;
            let other = stage.device("u1").await?;
            go_online(&other, Arc::new(stage.over_nats("u1", other.client_id()).await?)).await?;
            for _action in 0..others {
                other.execute(AddItem::to(AUDIENCE)).await?;
            }
            pass(&other).await?;
            backs.push(come_back(&stage, pending)?);
            let begin = Instant::now();
            floor::insert(&stage.pool, 1, pending / FLOOR_BATCH, FLOOR_BATCH).await?;
            floors.push(begin.elapsed());
        }
        Ok(entries(pending, others, &backs, floors))
    })
}

fn come_back(stage: &Stage, pending: u32) -> Result<Back, BenchError> {
    let Places { nats, http, token } = stage.places(USER)?;
    let mut process = Command::new(std::env::current_exe()?);
    process.arg("away").arg(stage.database()).args([nats, http, token, pending.to_string()]);
    let said = process.output()?;
    serde_json::from_slice(&said.stdout).map_err(|_| BenchError::Said {
        process: "a device that was away",
        answer: String::from_utf8_lossy(&said.stderr).into_owned(),
    })
}

fn entries(pending: u32, others: u32, backs: &[Back], floors: Vec<Duration>) -> Vec<Entry> {
    let micros = |of: fn(&Back) -> u64| {
        median(backs.iter().map(|back| Duration::from_micros(of(back))).collect()).as_secs_f64() * 1e6
    };
    let kib = |of: fn(&Back) -> f64| {
        let mut all: Vec<f64> = backs.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all[all.len() / 2] / 1024.0
    };
    let largest_step = backs.iter().map(|back| back.largest_step).max().unwrap_or_default();
    let of = |unit| Circumstances::new(unit).with("pending", pending).with("others", others);
    let (took, each) = (micros(|back| back.took_us), |micros: f64| micros / f64::from(pending));
    let mean_gap = micros(|back| back.took_us / back.steps.max(1));
    vec![
        of("us/action").entry("backlog", each(took), each(median(floors).as_secs_f64() * 1e6)),
        of("us").with("largest_step", largest_step).entry(
            "backlog_longest_gap",
            micros(|back| back.longest_gap_us),
            mean_gap,
        ),
        of("MiB").entry("backlog_memory", kib(|back| back.peak_kib), kib(|back| back.away_kib)),
    ]
}
