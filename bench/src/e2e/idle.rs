//! What devices that only listen cost the servers in memory.
//!
//! One growth each, not a median: a process does not give back what it grew by.

use std::time::Duration;

use futures::StreamExt;
use futures::stream;
use synchrotron_testkit::{NatsOptions, NatsServer};

use super::fanout::Many;
use super::stage::Stage;
use super::{Bench, CONNECTING_MAX};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let mut entries = Vec::new();
    if !cfg!(target_os = "linux") {
        return Ok(entries);
    }
    for clients in &bench.sizes.idle {
        entries.extend(bench.runtime.block_on(measure(*clients, bench.sizes.rest))?);
    }
    Ok(entries)
}

async fn measure(clients: u32, rest: Duration) -> Result<[Entry; 2], BenchError> {
    let per_bare = bare(clients, rest).await?;
    let stage = Stage::open().await?;
    stage.admit(clients, "project:1").await?;
    // What a first device makes the servers load is not what a device costs.
    let first = Many::listen(&stage, 1).await?;
    tokio::time::sleep(rest).await;
    let before = (nats_kib(&stage.nats)?, resident_kib(stage.server.pid())?);
    let many = Many::listen(&stage, clients).await?;
    tokio::time::sleep(rest).await;
    let after = (nats_kib(&stage.nats)?, resident_kib(stage.server.pid())?);
    drop((first, many));
    let per_client = grown(before.0, after.0, clients);
    let of = |unit| Circumstances::new(unit).with("clients", clients);
    Ok([
        of("KiB/client").entry("idle_nats", per_client, per_bare),
        of("MiB").entry("idle_server", after.1 / 1024.0, before.1 / 1024.0),
    ])
}

/// What as many bare connections cost another nats-server, each.
async fn bare(clients: u32, rest: Duration) -> Result<f64, BenchError> {
    let nats = NatsServer::start(NatsOptions::default()).await?;
    let before = nats_kib(&nats)?;
    let url = nats.url();
    let connecting = stream::iter(0..clients).map(|_| async_nats::connect(url)).buffer_unordered(CONNECTING_MAX);
    let connections: Vec<_> = connecting.collect().await;
    tokio::time::sleep(rest).await;
    let after = nats_kib(&nats)?;
    let all: Result<Vec<_>, _> = connections.into_iter().collect();
    drop(all.map_err(BenchError::nats)?);
    Ok(grown(before, after, clients))
}

/// For each client; what is less than can be told counts as a KiB in all.
fn grown(before: f64, after: f64, clients: u32) -> f64 {
    (after - before).max(1.0) / f64::from(clients)
}

fn nats_kib(nats: &NatsServer) -> Result<f64, BenchError> {
    let pid = nats.pid().ok_or(BenchError::Late { what: "nats-server's process" })?;
    resident_kib(pid)
}

/// How much memory a process holds now.
pub(super) fn resident_kib(pid: u32) -> Result<f64, BenchError> {
    status_kib(&pid.to_string(), "VmRSS:")
}

/// A line of what Linux says of a process.
pub(super) fn status_kib(process: &str, line: &'static str) -> Result<f64, BenchError> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let said = status.lines().find_map(|said| said.strip_prefix(line)).unwrap_or_default();
    said.trim().trim_end_matches(" kB").parse().map_err(|_| BenchError::Said { process: "Linux", answer: status })
}
