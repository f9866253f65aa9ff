//! Real clients over real NATS, HTTP and Postgres, with real kills: nothing lost, nothing doubled, all converge.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use synchrotron_core::model::ActionId;
use synchrotron_core::network::Carrier;
use synchrotron_core::store::Fate;
use synchrotron_examples::audit;
use synchrotron_examples::stage::{Device, Stage, StageError};
use synchrotron_examples::theatre::{BookSeat, OpenSeats, WriteNote};
use synchrotron_testkit::{LineState, Proxy, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);

type TestResult = Result<(), StageError>;

/// Waits until nothing is pending anywhere and every device shows what Postgres shows its user.
async fn settled(stage: &Stage, devices: &[(&str, &Device)]) -> TestResult {
    wait_for("all devices to equal Postgres", DEADLINE, async || {
        for (user, device) in devices {
            device.client.sync_now().await.ok()?;
            let truth = audit::postgres_rows(&stage.postgres, user).await.ok()?;
            let local = audit::device_rows(&device.client).await.ok()?;
            if device.client.status().borrow().pending > 0 || truth != local {
                return None;
            }
        }
        Some(())
    })
    .await?;
    Ok(())
}

/// Every executed action is in the log once (ids are its key), or in its device's quarantine.
async fn nothing_lost(stage: &Stage, devices: &[(&str, &Device)], executed: &[ActionId]) -> TestResult {
    let mut quarantined = 0;
    for (_, device) in devices {
        quarantined += device.client.quarantined().await?.len();
    }
    assert_eq!(audit::logged(&stage.postgres, executed).await? + quarantined, executed.len());
    Ok(())
}

async fn open_seats(device: &Device) -> Result<ActionId, StageError> {
    let labels = (0..6).map(|n| format!("S{n}")).collect();
    let mut opened = device.client.execute(OpenSeats { labels }).await?;
    assert_eq!(tokio::time::timeout(DEADLINE, opened.confirmed()).await??, Fate::Confirmed);
    Ok(opened.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_carrier_alone_carries_everything() -> TestResult {
    let stage = Stage::build().await?;
    let alice = stage.device_over("alice", &[Carrier::Nats]).await?;
    let bob = stage.device_over("bob", &[Carrier::Http]).await?;
    alice.connect();
    bob.connect();
    alice.wait_for_carrier(Carrier::Nats).await?;
    bob.wait_for_carrier(Carrier::Http).await?;
    let mut executed = vec![open_seats(&alice).await?];
    bob.client.sync_now().await?;
    for (device, label) in [(&alice, "S0"), (&bob, "S1")] {
        executed.push(device.client.execute(BookSeat { label: label.into() }).await?.id);
    }
    executed.push(bob.client.execute(WriteNote { body: "over HTTP".into() }).await?.id);
    let devices = [("alice", &alice), ("bob", &bob)];
    settled(&stage, &devices).await?;
    nothing_lost(&stage, &devices, &executed).await?;
    stage.strike().await;
    Ok(())
}

/// The ways to NATS and to HTTP, which are open, cut or silent, each on its own.
struct Ways {
    nats: Proxy,
    http: Proxy,
}

impl Ways {
    async fn to(stage: &Stage) -> Result<Self, StageError> {
        let nats = Proxy::start(([127, 0, 0, 1], stage.nats.port()?).into()).await?;
        Ok(Self { nats, http: Proxy::start(stage.http_addr()).await? })
    }

    async fn device(&self, stage: &Stage, user: &str) -> Result<Device, StageError> {
        let (nats, http) = (format!("nats://{}", self.nats.address()), format!("http://{}", self.http.address()));
        stage.device_through(user, &[Carrier::Nats, Carrier::Http], &nats, &http).await
    }

    /// One of the two becomes another.
    fn change(&self, random: &mut StdRng) {
        let way = [LineState::Clear, LineState::Cut, LineState::Stalled][random.random_range(0..3)];
        [&self.nats, &self.http][random.random_range(0..2)].set(way);
    }

    fn mend(&self) {
        self.nats.set(LineState::Clear);
        self.http.set(LineState::Clear);
    }
}

/// Both devices act while nats-server is killed and restarted, the ways to it and to HTTP are cut and fall silent, and
/// they themselves come and go.
#[tokio::test(flavor = "multi_thread")]
async fn a_random_day_of_outages_loses_and_doubles_nothing() -> TestResult {
    let seed = std::env::var("OUTAGE_SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().unwrap_or(0));
    eprintln!("run it again with: OUTAGE_SEED={seed} cargo test -p synchrotron-examples --test outages random_day");
    let mut random = StdRng::seed_from_u64(seed);
    let stage = Stage::build().await?;
    let ways = Ways::to(&stage).await?;
    let (alice, bob) = (ways.device(&stage, "alice").await?, ways.device(&stage, "bob").await?);
    let devices = [("alice", &alice), ("bob", &bob)];
    alice.go_online().await?;
    bob.go_online().await?;
    let mut executed = vec![open_seats(&alice).await?];
    bob.client.sync_now().await?;
    let mut nats_is_up = true;
    for step in 0..80 {
        let device = devices[random.random_range(0..2)].1;
        match random.random_range(0..14) {
            0 if nats_is_up => {
                stage.nats.kill().await?;
                nats_is_up = false;
            }
            0 => {
                stage.nats.restart().await?;
                nats_is_up = true;
            }
            1 => device.client.go_offline(),
            2 => device.connect(),
            3..5 => ways.change(&mut random),
            // Something is under way when the next thing happens.
            5..7 => tokio::time::sleep(Duration::from_millis(random.random_range(0..200))).await,
            7..10 => {
                // A seat that is taken is refused at once; that is the rule, not a failure.
                let label = format!("S{}", random.random_range(0..6));
                executed.extend(device.client.execute(BookSeat { label }).await.ok().map(|booking| booking.id));
            }
            _ => executed.push(device.client.execute(WriteNote { body: format!("note {step}") }).await?.id),
        }
    }
    if !nats_is_up {
        stage.nats.restart().await?;
    }
    ways.mend();
    alice.connect();
    bob.connect();
    settled(&stage, &devices).await?;
    nothing_lost(&stage, &devices, &executed).await?;
    // Connections that a proxy still holds would keep the server waiting.
    alice.client.go_offline();
    bob.client.go_offline();
    drop(ways);
    stage.strike().await;
    Ok(())
}
