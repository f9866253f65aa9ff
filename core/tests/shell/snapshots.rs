//! Rows that wait for a snapshot: they are asked for at once, and never in a hot loop.

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::client::{ClientError, SyncError, Timing};

use crate::scripted::{Call, Fault, Scripted};
use crate::support::{World, alice, note, open, within};

/// Two servers behind a balancer that sends each call to the other one: a snapshot that one begins, the other does not hold.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_is_lost_again_and_again_is_said_and_asked_for_ever_more_rarely() {
    let world = World::new();
    let other = world.client("other").await;
    for text in 0..7 {
        within(other.execute(note(text.to_string()))).await;
    }
    other.go_online(Arc::new(world.server.connect(alice())));
    within(other.sync_now()).await;
    other.go_offline();
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
