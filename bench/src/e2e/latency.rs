//! From `execute` on one device to the change feed of another, one action at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use synchrotron_core::client::{Change, Client};
use tokio::sync::broadcast;

use super::Bench;
use super::app::{AddItem, brings};
use super::floor::Plain;
use super::stage::{Stage, go_online, in_time};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};

const AUDIENCE: &str = "project:1";

#[derive(Debug, Clone, Copy)]
enum By {
    Nats,
    Http,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Http => "http",
        }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    bench.runtime.block_on(async {
        let stage = Stage::open().await?;
        stage.admit(4, AUDIENCE).await?;
        let plain = Plain::open(&stage, 0).await?;
        let mut entries = Vec::new();
        for (by, actions) in [(By::Nats, bench.sizes.actions), (By::Http, bench.sizes.actions_by_http)] {
            entries.extend(measure(bench, &stage, &plain, by, actions).await?);
        }
        Ok(entries)
    })
}

async fn measure(
    bench: &Bench,
    stage: &Stage,
    plain: &Plain,
    by: By,
    actions: usize,
) -> Result<Vec<Entry>, BenchError> {
    let (author, reader) = (device(stage, "u0", by).await?, device(stage, "u1", by).await?);
    let mut feed = reader.changes();
    let percentiles = [50, 99];
    let mut rounds: Vec<[(Duration, Duration); 2]> = Vec::new();
    for round in 0..=bench.rounds.count() {
        let (mut ours, mut floors) = (Vec::new(), Vec::new());
        for _action in 0..actions {
            floors.push(plain.round_trip_and_commit().await?);
            ours.push(one(&author, &mut feed).await?);
        }
        if round > 0 {
            rounds.push(percentiles.map(|percent| (percentile(&mut ours, percent), percentile(&mut floors, percent))));
        }
    }
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    Ok((0..2)
        .map(|index| {
            let of = |pick: fn(&(Duration, Duration)) -> Duration| {
                let mut times: Vec<_> = rounds.iter().map(|round| pick(&round[index])).collect();
                micros(percentile(&mut times, 50))
            };
            let circumstances = Circumstances::new("us").with("by", by.name()).with("percentile", percentiles[index]);
            circumstances.entry("e2e_latency", of(|pair| pair.0), of(|pair| pair.1))
        })
        .collect())
}

async fn device(stage: &Stage, user: &str, by: By) -> Result<Client, BenchError> {
    let client = stage.device(user).await?;
    match by {
        By::Nats => go_online(&client, Arc::new(stage.over_nats(user, client.client_id()).await?)).await?,
        By::Http => go_online(&client, Arc::new(stage.over_http(user)?)).await?,
    }
    Ok(client)
}

/// One action's way.
async fn one(author: &Client, feed: &mut broadcast::Receiver<std::sync::Arc<Change>>) -> Result<Duration, BenchError> {
    let action = AddItem::to(AUDIENCE);
    let row = action.row_id();
    let begin = Instant::now();
    author.execute(action).await?;
    loop {
        let change = in_time("an action to arrive", feed.recv()).await?;
        if change.is_ok_and(|change| brings(&change, &row)) {
            return Ok(begin.elapsed());
        }
    }
}

/// Nearest rank.
fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort();
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}
