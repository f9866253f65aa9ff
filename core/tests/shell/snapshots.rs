//! Rows that wait for a snapshot: they are asked for at once, and never in a hot loop.

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::client::{Client, ClientError, SyncError, Timing};

use crate::scripted::{Call, Fault, Scripted};
use crate::support::{World, alice, note, open, quick, soon, within};

/// Looks by itself once an hour, so that whatever it does before, something led it to.
fn seldom() -> Timing {
    let hour = Duration::from_secs(3_600);
    Timing { head_check: hour, poll: hour, ..quick() }
}

async fn online(world: &World, client: &Client) -> Arc<Scripted> {
    let network = Scripted::new(world.server.connect(alice()));
    client.go_online(Arc::clone(&network) as _);
    within(client.sync_now()).await;
    network
}

async fn shows(client: &Client, text: &str) {
    let mut found = client.live_query("SELECT 1 FROM notes WHERE text = ?", &[text.into()]);
    soon(async { while found.next().await.expect("the client lives").expect("reads").is_empty() {} }).await;
}

/// Two servers behind a balancer that sends each call to the other one: a snapshot that one begins, the other does not hold.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_lost_again_and_again_is_said_and_asked_for_ever_more_rarely() {
    let world = World::with_notes((0..7).map(|text| text.to_string())).await;
    world.server.set_snapshot_rows_max(2);
    let client = open(&world.path("alice"), Timing::default()).await;
    let network = Scripted::new(world.server.connect(alice()));
    network.fault(Call::Snapshot, Fault::Elsewhere);
    client.go_online(Arc::clone(&network) as _);
    let mut status = client.status();
    let failed = tokio::time::timeout(Duration::from_secs(120), status.wait_for(|status| status.last_error.is_some()));
    let error = failed.await.expect("said").expect("the client lives").last_error.clone().expect("it is there").error;
    assert!(matches!(error, SyncError::SnapshotLost), "{error}");
    let before = network.count(Call::Snapshot);
    tokio::select! {
        () = network.called(Call::Snapshot, before + 300) => panic!("it spins"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    assert!(network.count(Call::Snapshot) > before, "it goes on");
    network.mend();
    while let Err(error) = client.sync_now().await {
        assert!(matches!(error, ClientError::Sync(SyncError::SnapshotLost)), "{error}");
    }
    assert_eq!(within(client.query("SELECT id FROM notes", &[])).await.len(), 7);
}

#[tokio::test]
async fn a_slice_beneath_the_floor_leads_to_a_snapshot_at_once() {
    let world = World::with_history().await;
    let laptop = world.client("laptop").await;
    online(&world, &laptop).await;
    laptop.go_offline();
    within(laptop.execute(note("early"))).await;
    let tablet = world.client("tablet").await;
    for text in ["one", "two", "three"] {
        within(tablet.execute(note(text))).await;
    }
    online(&world, &tablet).await;
    let phone = open(&world.path("phone"), seldom()).await;
    online(&world, &phone).await;
    laptop.go_online(Arc::new(world.server.connect(alice())));
    shows(&phone, "early").await;
    let mut own = within(phone.execute(note("own"))).await;
    within(own.confirmed()).await;
}

#[tokio::test]
async fn rows_that_another_process_gave_up_are_asked_for_at_once() {
    let world = World::with_history().await;
    let path = world.path("phone");
    let leader = open(&path, seldom()).await;
    let network = online(&world, &leader).await;
    let follower = open(&path, seldom()).await;
    let before = network.count(Call::Snapshot);
    within(follower.rebase()).await;
    soon(network.called(Call::Snapshot, before + 1)).await;
    let mut own = within(follower.execute(note("own"))).await;
    within(own.confirmed()).await;
}
