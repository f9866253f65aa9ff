//! Accepted one-row actions per second, against plain set-based inserts of the same rows.

use std::sync::Mutex;

use futures::future::try_join_all;
use tokio::runtime::Runtime;

use super::stage::{Device, devices, next_ms};
use super::{Bench, floor, micros_each};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

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
    Ok(entries)
}

/// Against plain transactions of the same sizes, from as many connections.
fn set_based(bench: &Bench, load: Load) -> Result<Entry, BenchError> {
    let batches = load.batches(bench.sizes.ingests);
    compare(bench, "ingest", load, batches, |bench| {
        bench.runtime.block_on(floor::insert(&bench.stage.pool, load.all(), batches, load.batch))
    })
}

/// Against one plain transaction for each action, one after the other.
fn grouped(bench: &Bench, load: Load) -> Result<Entry, BenchError> {
    let batches = load.batches(bench.sizes.ingests);
    compare(bench, "ingest_grouped", load, batches, |bench| {
        bench.runtime.block_on(floor::insert(&bench.stage.pool, 1, load.all() * batches, 1))
    })
}

fn compare(
    bench: &Bench,
    name: &str,
    load: Load,
    batches: u32,
    floor: impl Fn(&Bench) -> Result<(), BenchError>,
) -> Result<Entry, BenchError> {
    let Bench { runtime, stage, .. } = bench;
    let prefix = format!("{name}-{}-{}-{}-", load.uploaders, load.devices, load.batch);
    let all = Mutex::new(runtime.block_on(devices(stage, &prefix, load.all()))?);
    let mut runners: [Runner<'_>; 2] = [
        Box::new(|| {
            let mut all = all.lock().expect("BUG: nobody panics with it");
            timed(|| upload(runtime, &mut all, batches, load.batch))
        }),
        Box::new(|| timed(|| floor(bench))),
    ];
    let times = medians(bench.rounds, 1, &mut runners)?;
    let actions = load.all() * batches * load.batch;
    let circumstances = Circumstances::new("us/action")
        .with("uploaders", load.uploaders)
        .with("devices", load.devices)
        .with("batch", load.batch);
    Ok(circumstances.entry(name, micros_each(times[0], actions), micros_each(times[1], actions)))
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
