//! A thousand devices that come back at once, each with an action of its own and one of others to fetch; and a thousand
//! that lose NATS at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::try_join_all;
use futures::stream;
use futures::{StreamExt, TryStreamExt};
use synchrotron_core::client::Client;
use synchrotron_core::model::RowId;
use synchrotron_core::network::{Carrier, Failover, FailoverPauses, Network};
use synchrotron_core::params;

use super::app::AddItem;
use super::stage::{Stage, go_online, in_time, pass};
use super::watched::{Calls, Watched};
use super::{Bench, CONNECTING_MAX};
use crate::error::BenchError;
use crate::report::{Circumstances, Entry};
use crate::rounds::median;
use crate::server::floor;

const COMMON: &str = "project:1";
/// How often a device is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// NATS goes once a round: as they are, each return would take longer than the one before.
const PAUSES: FailoverPauses = FailoverPauses { first: Duration::from_secs(1), longest: Duration::from_secs(2) };
/// Connections of the floor.
const WRITERS: u32 = 8;

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    bench.runtime.block_on(async {
        let storm = Storm::gather(bench.sizes.storm).await?;
        let (mut opened, mut lost, mut floors) = (Vec::new(), Vec::new(), Vec::new());
        for _round in 0..bench.long_rounds() {
            opened.push(storm.all_come_back().await?);
            lost.push(storm.all_lose_nats().await?);
            let begin = Instant::now();
            floor::insert(&storm.stage.pool, WRITERS, bench.sizes.storm.div_ceil(WRITERS), 1).await?;
            floors.push(begin.elapsed());
        }
        let floor = median(floors);
        Ok([("come_back", opened), ("lose_nats", lost)]
            .into_iter()
            .flat_map(|(what, rounds)| entries(bench.sizes.storm, what, &rounds, floor))
            .collect())
    })
}

/// How one storm went.
#[derive(Debug, Clone, Copy)]
struct Weathered {
    took: Duration,
    /// The most calls that were under way at once.
    peak: u32,
    /// Calls in all.
    calls: u32,
    /// Devices whose app was shown a failure.
    failures: usize,
}

fn entries(devices: u32, what: &str, rounds: &[Weathered], floor: Duration) -> [Entry; 3] {
    let failures = rounds.iter().map(|round| round.failures).max().unwrap_or_default();
    let count = |of: fn(&Weathered) -> u32| {
        let mut counts: Vec<u32> = rounds.iter().map(of).collect();
        counts.sort_unstable();
        f64::from(counts[counts.len() / 2])
    };
    let took = median(rounds.iter().map(|round| round.took).collect());
    let of =
        |unit| Circumstances::new(unit).with("devices", devices).with("what", what).with("failures_shown", failures);
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    [
        of("ms").entry("storm", millis(took), millis(floor)),
        of("calls at once").entry("storm_peak", count(|round| round.peak), f64::from(devices)),
        of("calls").entry("storm_calls", count(|round| round.calls), f64::from(devices)),
    ]
}

struct Storm {
    stage: Stage,
    devices: Vec<(Client, Arc<dyn Network>)>,
    other: Client,
    calls: Arc<Calls>,
}

impl Storm {
    /// Opens so many devices, with NATS and HTTP behind it, and syncs each once.
    async fn gather(devices: u32) -> Result<Self, BenchError> {
        let stage = Stage::open().await?;
        stage.admit(devices, COMMON).await?;
        let (other, _) = device(&stage, devices, &Arc::default()).await?;
        let calls = Arc::<Calls>::default();
        let opening = stream::iter(0..devices).map(|n| device(&stage, n, &calls)).buffer_unordered(CONNECTING_MAX);
        let devices = opening.try_collect().await?;
        Ok(Self { stage, devices, other, calls })
    }

    /// All are away, write something, and come back at the same moment.
    async fn all_come_back(&self) -> Result<Weathered, BenchError> {
        self.devices.iter().for_each(|(client, _)| client.go_offline());
        let row = self.everybody_writes().await?;
        pass(&self.other).await?;
        self.weather(&row, || async {
            self.devices.iter().for_each(|(client, network)| client.go_online(Arc::clone(network)));
            Ok(())
        })
        .await
    }

    /// NATS is killed while all are online and each writes something: HTTP bears them all. Then NATS comes back.
    async fn all_lose_nats(&self) -> Result<Weathered, BenchError> {
        let row = AddItem::to(COMMON);
        let id = row.row_id();
        let weathered = self
            .weather(&id, || async {
                self.stage.nats.kill().await?;
                self.other.execute(row.clone()).await?;
                try_join_all(self.devices.iter().map(|(client, _)| client.execute(own(client)))).await?;
                Ok(())
            })
            .await?;
        self.stage.nats.restart().await?;
        for client in self.devices.iter().map(|(client, _)| client).chain([&self.other]) {
            let mut status = client.status();
            let back = status.wait_for(|status| status.connection.carrier() == Some(Carrier::Nats));
            in_time("NATS to carry again", back).await?.map_err(|_| BenchError::Late { what: "a client" })?;
        }
        Ok(weathered)
    }

    async fn everybody_writes(&self) -> Result<RowId, BenchError> {
        try_join_all(self.devices.iter().map(|(client, _)| client.execute(own(client)))).await?;
        let action = AddItem::to(COMMON);
        let row = action.row_id();
        self.other.execute(action).await?;
        Ok(row)
    }

    /// Lets a storm break, and waits until every device has sent its own and has this row.
    async fn weather<A: Future<Output = Result<(), BenchError>>>(
        &self,
        row: &RowId,
        storm: impl FnOnce() -> A,
    ) -> Result<Weathered, BenchError> {
        self.calls.begin();
        let (began_ms, begin) = (now_ms(), Instant::now());
        storm().await?;
        for (client, _) in &self.devices {
            in_time("the storm to pass", calm(client, row)).await??;
        }
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        for (client, _) in &self.devices {
            let newest = client.status().borrow().last_error.clone();
            if let Some(failed) = newest.filter(|failed| failed.at_ms >= began_ms) {
                *reasons.entry(failed.error.to_string()).or_default() += 1;
            }
        }
        for (reason, devices) in &reasons {
            eprintln!("{devices} devices were shown: {reason}");
        }
        let failures = reasons.values().sum();
        let (peak, calls) = self.calls.told();
        Ok(Weathered { took: begin.elapsed(), peak, calls, failures })
    }
}

fn own(client: &Client) -> AddItem {
    AddItem::to(&format!("user:{}", client.user_id()))
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Waits until nothing is pending and the row is here.
async fn calm(client: &Client, row: &RowId) -> Result<(), BenchError> {
    loop {
        let sent = client.status().borrow().pending == 0;
        if sent && !client.query("SELECT 1 FROM items WHERE id = ?", params![row.as_str()]).await?.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn device(stage: &Stage, n: u32, calls: &Arc<Calls>) -> Result<(Client, Arc<dyn Network>), BenchError> {
    let user = format!("u{n}");
    let client = stage.device(&user).await?;
    let nats = stage.over_nats(&user, client.client_id()).await?;
    let failover = Failover::with_pauses(vec![Arc::new(nats), Arc::new(stage.over_http(&user)?)], PAUSES);
    let network: Arc<dyn Network> = Arc::new(Watched::new(failover, Arc::clone(calls)));
    go_online(&client, Arc::clone(&network)).await?;
    Ok((client, network))
}
