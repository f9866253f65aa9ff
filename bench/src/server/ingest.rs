//! Accepted one-row actions per second, against plain set-based inserts of the same rows.

use std::sync::Mutex;
use std::time::Duration;

use futures::future::try_join_all;
use sqlx_postgres::PgPool;
use tokio::runtime::Runtime;

use super::stage::{Device, Stage, devices, next_ms};
use super::{Bench, floor, micros_each};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// How much longer a sync takes where it is made slow; as much as a rented disk's is longer than a local one's.
const SLOWER_BY: Duration = Duration::from_millis(2);

/// Who uploads: connections, each with devices that have one batch in flight each.
#[derive(Debug, Clone, Copy)]
struct Load {
    uploaders: u32,
    devices: u32,
    batch: u32,
}

impl Load {
    const fn all(self) -> u32 {
        self.uploaders * self.devices
    }

    /// How many batches each device sends, for about so many actions in all.
    fn batches(self, actions: u32) -> u32 {
        (actions / (self.all() * self.batch)).max(1)
    }

    fn circumstances(self) -> Circumstances {
        Circumstances::new("us/action")
            .with("uploaders", self.uploaders)
            .with("devices", self.devices)
            .with("batch", self.batch)
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let mut entries = Vec::new();
    for uploaders in [1, 8] {
        for batch in [1, 10, 100] {
            entries.push(set_based(bench, Load { uploaders, devices: 1, batch })?);
        }
    }
    for devices in [1, 32] {
        entries.push(grouped(bench, Load { uploaders: 8, devices, batch: 1 })?);
    }
    entries.push(grouped_with_slow_syncs(bench, Load { uploaders: 8, devices: 32, batch: 1 })?);
    Ok(entries)
}

/// Against plain transactions of the same sizes, from as many connections.
fn set_based(bench: &Bench, load: Load) -> Result<Entry, BenchError> {
    let batches = load.batches(bench.sizes.ingests);
    let floor = |pool: &PgPool| bench.runtime.block_on(floor::insert(pool, load.all(), batches, load.batch));
    let (value, floor) = compare(bench, &bench.stage, "set", load, batches, floor)?;
    Ok(load.circumstances().entry("ingest", value, floor))
}

/// Against one plain transaction for each action, one after the other.
fn grouped(bench: &Bench, load: Load) -> Result<Entry, BenchError> {
    let (value, floor) = beside_single(bench, &bench.stage, load)?;
    Ok(load.circumstances().entry("ingest_grouped", value, floor))
}

/// The same where a commit waits for the disk as long as on many rented ones.
fn grouped_with_slow_syncs(bench: &Bench, load: Load) -> Result<Entry, BenchError> {
    let slow = bench.runtime.block_on(bench.stage.with_slow_syncs(SLOWER_BY))?;
    let (value, floor) = beside_single(bench, &slow, load)?;
    let slower_by = u64::try_from(SLOWER_BY.as_micros()).expect("BUG: a few thousand");
    Ok(load.circumstances().with("sync_slower_by_us", slower_by).entry("ingest_grouped", value, floor))
}

fn beside_single(bench: &Bench, stage: &Stage, load: Load) -> Result<(f64, f64), BenchError> {
    let batches = load.batches(bench.sizes.ingests);
    let floor = |pool: &PgPool| bench.runtime.block_on(floor::insert(pool, 1, load.all() * batches, 1));
    compare(bench, stage, "grouped", load, batches, floor)
}

/// Microseconds for an action, of the uploads by users of this name and of the floor.
fn compare(
    bench: &Bench,
    stage: &Stage,
    users: &str,
    load: Load,
    batches: u32,
    floor: impl Fn(&PgPool) -> Result<(), BenchError>,
) -> Result<(f64, f64), BenchError> {
    let runtime = &bench.runtime;
    let prefix = format!("{users}-{}-{}-{}-", load.uploaders, load.devices, load.batch);
    let all = Mutex::new(runtime.block_on(devices(stage, &prefix, load.all()))?);
    let mut runners: [Runner<'_>; 2] = [
        Box::new(|| {
            let mut all = all.lock().expect("BUG: nobody panics with it");
            timed(|| upload(runtime, &mut all, batches, load.batch))
        }),
        Box::new(|| timed(|| floor(&stage.pool))),
    ];
    let times = medians(bench.rounds, 1, &mut runners)?;
    let actions = load.all() * batches * load.batch;
    Ok((micros_each(times[0], actions), micros_each(times[1], actions)))
}

/// All devices at once, each batch after batch.
fn upload(runtime: &Runtime, devices: &mut [Device], batches: u32, batch: u32) -> Result<(), BenchError> {
    let uploads = devices.iter_mut().map(|device| async move {
        for _batch in 0..batches {
            let records = (0..batch).map(|_| device.insert(next_ms())).collect();
            device.upload(records).await?;
        }
        Ok::<_, BenchError>(())
    });
    runtime.block_on(async { try_join_all(uploads).await.map(drop) })
}
