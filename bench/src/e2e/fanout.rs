//! From `execute` on one device until every one of many subscribed devices has the slice.
//!
//! The many are the network part of a device, without a database: a thousand databases on one machine would measure its
//! disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream;
use synchrotron_core::client::Client;
use synchrotron_core::model::{ActionId, AudienceKey, ClientId};
use synchrotron_core::network::{Ingress, Network};
use synchrotron_core::wire::SessionRequest;
use synchrotron_nats::NatsNetwork;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::app::AddItem;
use super::floor::Plain;
use super::stage::{Stage, go_online, in_time, until_done};
use super::{Bench, CONNECTING_MAX};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::{Runner, medians};

const AUDIENCE: &str = "project:1";

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    bench.sizes.listeners.iter().map(|listeners| measure(bench, *listeners)).collect()
}

fn measure(bench: &Bench, listeners: u32) -> Result<Entry, BenchError> {
    let runtime = &bench.runtime;
    let (stage, mut plain, author, mut many) = runtime.block_on(async {
        let stage = Stage::open().await?;
        stage.admit(listeners, AUDIENCE).await?;
        let author = stage.device("u0").await?;
        go_online(&author, Arc::new(stage.over_nats("u0", author.client_id()).await?)).await?;
        let many = Many::listen(&stage, listeners).await?;
        let plain = Plain::open(&stage, listeners as usize).await?;
        Ok::<_, BenchError>((stage, plain, author, many))
    })?;
    let mut runners: [Runner<'_>; 2] = [
        Box::new(|| runtime.block_on(many.all_hear(&author))),
        Box::new(|| runtime.block_on(plain.commit_and_fan_out())),
    ];
    let turns = bench.sizes.fan_outs;
    let times = medians(bench.rounds, turns, &mut runners)?;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(turns);
    drop(runners);
    drop(stage);
    let circumstances = Circumstances::new("us").with("listeners", listeners);
    Ok(circumstances.entry("e2e_fan_out", micros(times[0]), micros(times[1])))
}

/// Devices that have a session each, and listen to the one audience.
#[derive(Debug)]
pub(super) struct Many {
    heard: mpsc::UnboundedReceiver<ActionId>,
    count: u32,
    _listening: JoinSet<()>,
}

impl Many {
    pub(super) async fn listen(stage: &Stage, count: u32) -> Result<Self, BenchError> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        let mut connecting = stream::iter(0..count).map(|n| session(stage, n)).buffer_unordered(CONNECTING_MAX);
        while let Some(network) = connecting.next().await {
            let network = network?;
            let audience = AudienceKey::new(AUDIENCE).expect("BUG: a key");
            let events = network.subscribe(&[audience]).await?;
            let mut events = events.ok_or(BenchError::Late { what: "push" })?;
            let tell = tell.clone();
            listening.spawn(async move {
                let _connection = network;
                while let Some(event) = events.next().await {
                    if let Ingress::Slice(slice) = event {
                        let _told = slice.records.iter().try_for_each(|entry| tell.send(entry.record.id));
                    }
                }
            });
        }
        Ok(Self { heard, count, _listening: listening })
    }

    /// One action's way to all of them.
    async fn all_hear(&mut self, author: &Client) -> Result<Duration, BenchError> {
        let begin = Instant::now();
        let action_id = author.execute(AddItem::to(AUDIENCE)).await?.id;
        let mut missing = self.count;
        while missing > 0 {
            let heard = in_time("a slice", self.heard.recv()).await?;
            missing -= u32::from(heard == Some(action_id));
        }
        Ok(begin.elapsed())
    }
}

/// The network part of a new device of the `n`th user, with a session.
async fn session(stage: &Stage, n: u32) -> Result<NatsNetwork, BenchError> {
    let client_id = ClientId::from_uuid(Uuid::now_v7());
    let network = stage.over_nats(&format!("u{n}"), client_id).await?;
    until_done("a session", async || network.session(&SessionRequest { client_id }).await).await?;
    Ok(network)
}
