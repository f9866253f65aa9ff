//! Reading: a device that fetches what it has not seen, and one that takes a snapshot, against plain `COPY` of the rows.

use std::time::Duration;

use futures::TryStreamExt;
use sqlx_postgres::PgPoolCopyExt;
use synchrotron_core::model::Cursors;
use synchrotron_core::wire::{FetchRequest, SnapshotPosition, SnapshotRequest};

use super::stage::Device;
use super::{Bench, micros_each};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians, timed};

/// Fetches actions of one audience from the beginning, page by page.
pub(super) fn fetch(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let count = bench.sizes.fetched;
    let mut device = bench.runtime.block_on(bench.stage.device("fetch"))?;
    let mut left = count;
    while left > 0 {
        let some = left.min(500);
        let records = (0..some).map(|n| device.insert(1_000_000 + i64::from(count - left + n))).collect();
        bench.runtime.block_on(device.upload(records))?;
        left -= some;
    }
    let copy = "COPY (SELECT r.*, m.* FROM synchrotron.action_audiences a \
        JOIN synchrotron.action_records r ON r.server_ingest_id = a.server_ingest_id \
        JOIN synchrotron.action_modified_rows m ON m.action_id = r.id WHERE a.audience_key = 'user:fetch') \
        TO STDOUT (FORMAT binary)";
    let mut runners: [Runner<'_>; 2] = [
        Box::new(|| timed(|| bench.runtime.block_on(fetch_all(&device, count)))),
        Box::new(|| timed(|| copy_out(bench, copy))),
    ];
    let times = medians(bench.rounds, 1, &mut runners)?;
    let circumstances = Circumstances::new("us/action").with("actions", count);
    Ok(vec![circumstances.entry("fetch", micros_each(times[0], count), micros_each(times[1], count))])
}

async fn fetch_all(device: &Device, expected: u32) -> Result<(), BenchError> {
    let mut cursors = Cursors::new();
    let mut records = 0;
    loop {
        let request = FetchRequest { client_id: device.client_id, epoch: device.epoch, cursors };
        let page = device.service.fetch(&device.principal, request).await?;
        records += page.records.len();
        cursors = page.cursors;
        if !page.more {
            break;
        }
    }
    all_there(records, expected)
}

/// Takes a snapshot of one audience, chunk by chunk.
pub(super) fn snapshot(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let rows = bench.sizes.snapshot_rows;
    let device = bench.runtime.block_on(async {
        let fill = format!(
            "INSERT INTO items SELECT 'snap-' || n, 'item number ' || n, n, 'user:snapshot' FROM generate_series(1, {rows}) n"
        );
        bench.stage.execute(fill).await?;
        bench.stage.execute("ANALYZE items".to_owned()).await?;
        bench.stage.device("snapshot").await
    })?;
    let copy = "COPY (SELECT * FROM items WHERE audience_key = 'user:snapshot') TO STDOUT (FORMAT binary)";
    let mut runners: [Runner<'_>; 2] = [
        Box::new(|| timed(|| bench.runtime.block_on(take_snapshot(&device, rows)))),
        Box::new(|| timed(|| copy_out(bench, copy))),
    ];
    let times: Vec<Duration> = medians(bench.rounds, 1, &mut runners)?;
    let circumstances = Circumstances::new("us/row").with("rows", rows);
    Ok(vec![circumstances.entry("snapshot", micros_each(times[0], rows), micros_each(times[1], rows))])
}

async fn take_snapshot(device: &Device, expected: u32) -> Result<(), BenchError> {
    let mut rows = 0;
    let mut resume = None;
    loop {
        let request = SnapshotRequest {
            client_id: device.client_id,
            epoch: device.epoch,
            audiences: vec![device.audience_key.clone()],
            ids: Vec::new(),
            resume,
        };
        let chunk = device.service.snapshot(&device.principal, request).await?;
        rows += chunk.rows.len();
        if chunk.last {
            break;
        }
        resume = Some(SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position });
    }
    all_there(rows, expected)
}

fn all_there(actual: usize, expected: u32) -> Result<(), BenchError> {
    let expected = usize::try_from(expected).expect("BUG: fits");
    if actual == expected { Ok(()) } else { Err(BenchError::Incomplete { expected, actual }) }
}

fn copy_out(bench: &Bench, sql: &'static str) -> Result<(), BenchError> {
    bench.runtime.block_on(async {
        let mut rows = bench.stage.pool.copy_out_raw(sql).await?;
        let mut bytes = 0;
        while let Some(chunk) = rows.try_next().await? {
            bytes += chunk.len();
        }
        if bytes == 0 { Err(BenchError::Incomplete { expected: 1, actual: 0 }) } else { Ok(()) }
    })
}
