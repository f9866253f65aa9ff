//! The driver goes on: whatever the network does, whoever gives up, and without spinning.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context};
use synchrotron_core::client::{Client, ClientError, Connection, SyncError, Timing};
use synchrotron_core::model::{AudienceKey, Cursor, Epoch, UserId};
use synchrotron_core::network::Ingress;
use synchrotron_core::store::Fate;
use synchrotron_core::wire::Slice;
use uuid::Uuid;

use crate::scripted::{CALLS, Call, Fault, Scripted};
use crate::support::{Break, World, alice, insert, note, open, open_for, quick, soon, within};

async fn online(world: &World, name: &str) -> (Client, Arc<Scripted>) {
    let client = world.client(name).await;
    let network = Scripted::new(world.server.connect(alice()));
    client.go_online(Arc::clone(&network) as _);
    (client, network)
}

/// Everything that was executed is at the server, once.
async fn whole(client: &Client, world: &World, texts: usize) {
    within(client.sync_now()).await;
    assert_eq!(client.status().borrow().pending, 0);
    assert_eq!(world.texts(), texts);
}

#[tokio::test]
async fn requests_that_come_together_share_one_pass_after_the_one_that_runs() {
    let world = World::new();
    let (client, network) = online(&world, "alice").await;
    within(client.sync_now()).await;
    network.let_fetch(false);
    let before = network.count(Call::Fetch);
    let mut first = Box::pin(client.sync_now());
    assert!((&mut first).now_or_never().is_none());
    soon(network.called(Call::Fetch, before + 1)).await;
    let mut others: Vec<_> = (0..200).map(|_| Box::pin(client.sync_now())).collect();
    for other in &mut others {
        assert!(other.now_or_never().is_none(), "a request that comes during a pass waits for the next");
    }
    network.let_fetch(true);
    within(first).await;
    for answer in soon(join_all(others)).await {
        answer.expect("synced");
    }
    assert_eq!(network.count(Call::Fetch) - before, 2, "201 requests, two passes");
}

#[tokio::test]
async fn u30_the_next_trigger_runs_after_going_offline_in_the_middle_of_any_call() {
    for call in CALLS {
        for fault in [Fault::Stop, Fault::StopAfter] {
            let world = World::with_history().await;
            let client = world.client("alice").await;
            within(client.execute(note("a"))).await;
            let network = Scripted::new(world.server.connect(alice()));
            network.fault(call, fault);
            client.go_online(Arc::clone(&network) as _);
            soon(network.called(call, 1)).await;
            client.go_offline();
            assert!(matches!(client.status().borrow().connection, Connection::Offline));
            within(client.execute(note("b"))).await;
            network.mend();
            client.go_online(network);
            whole(&client, &world, 3).await;
        }
    }
}

#[tokio::test]
async fn u30_a_request_that_is_given_up_at_any_call_keeps_nobody_waiting() {
    for call in [Call::Session, Call::Subscribe, Call::Snapshot, Call::Fetch, Call::Upload] {
        let world = World::with_history().await;
        let client = world.client("alice").await;
        within(client.execute(note("a"))).await;
        let network = Scripted::new(world.server.connect(alice()));
        network.fault(call, Fault::Panic);
        network.let_fetch(false);
        client.go_online(Arc::clone(&network) as _);
        let mut given_up = Box::pin(client.sync_now());
        assert!((&mut given_up).now_or_never().is_none());
        drop(given_up);
        network.let_fetch(true);
        soon(network.called(call, 2)).await;
        network.mend();
        // A request may still meet the pass that fails; the one after it does not.
        let _failed_with_that_pass = soon(client.sync_now()).await;
        whole(&client, &world, 2).await;
    }
}

#[tokio::test]
async fn u30_a_network_that_panics_is_shown_and_tried_again() {
    for call in CALLS {
        let world = World::with_history().await;
        let client = world.client("alice").await;
        within(client.execute(note("a"))).await;
        let network = Scripted::new(world.server.connect(alice()));
        network.fault(call, Fault::Panic);
        client.go_online(Arc::clone(&network) as _);
        let mut status = client.status();
        let failed = soon(status.wait_for(|status| matches!(status.connection, Connection::Failed { .. }))).await;
        let error = failed.expect("the client lives").last_error.clone().expect("it is kept").error;
        assert!(matches!(error, SyncError::Interrupted { panicked: true }), "{call:?}: {error}");
        network.mend();
        let recovered = soon(status.wait_for(|status| status.connection.carrier().is_some())).await;
        assert!(recovered.expect("the client lives").last_error.is_some(), "for a look at it later");
        whole(&client, &world, 2).await;
    }
}

#[tokio::test]
async fn an_action_that_panics_leaves_the_client_whole() {
    let world = World::new();
    let (client, _network) = online(&world, "alice").await;
    within(client.sync_now()).await;
    assert!(client.execute(Break {}).await.is_err());
    within(client.execute(note("a"))).await;
    whole(&client, &world, 1).await;
}

fn slice(epoch: u128, audience: &str, prev: i64, through: i64) -> Ingress {
    Ingress::Slice(Slice {
        epoch: Epoch::from_uuid(Uuid::from_u128(epoch)),
        audience_key: AudienceKey::new(audience).expect("an audience"),
        prev: Cursor::new(prev),
        through: Cursor::new(through),
        records: Vec::new(),
    })
}

#[tokio::test]
async fn u30_slices_of_another_epoch_a_foreign_audience_or_out_of_nowhere_stop_nothing() {
    let world = World::new();
    let client = world.client("alice").await;
    let network = Scripted::new(world.server.connect(alice()));
    network.push([
        slice(1, "project:not-mine", 0, 7),
        slice(1, "user:alice", 90, 99),
        slice(1, "user:alice", 9, 3),
        slice(1, "user:alice", i64::MAX, i64::MIN),
        slice(666, "user:alice", 0, 5),
    ]);
    client.go_online(Arc::clone(&network) as _);
    within(client.execute(note("a"))).await;
    soon(network.called(Call::Session, 2)).await;
    whole(&client, &world, 1).await;
    assert!(client.status().borrow().last_error.is_some(), "the foreign epoch was told");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_ends_at_once_is_opened_again_ever_more_rarely() {
    let world = World::new();
    let client = open(&world.path("alice"), Timing::default()).await;
    let network = Scripted::new(world.server.connect(alice()));
    network.fault(Call::Stream, Fault::Close);
    client.go_online(Arc::clone(&network) as _);
    within(client.sync_now()).await;
    tokio::select! {
        () = network.called(Call::Session, 200) => panic!("it spins"),
        () = tokio::time::sleep(Duration::from_secs(60)) => {}
    }
    let sessions = network.count(Call::Session);
    assert!((5..100).contains(&sessions), "{sessions} sessions in a minute");
    network.mend();
    within(client.execute(note("a"))).await;
    soon(client.status().wait_for(|status| status.pending == 0)).await.expect("the client lives");
}

#[tokio::test]
async fn offline_answers_who_waits() {
    let world = World::new();
    let (client, network) = online(&world, "alice").await;
    network.let_fetch(false);
    let mut waits = Box::pin(client.sync_now());
    assert!((&mut waits).now_or_never().is_none());
    client.go_offline();
    assert!(matches!(soon(waits).await, Err(ClientError::Offline)));
}

#[tokio::test]
async fn a_bootstrap_shows_how_far_it_is() {
    let world = World::with_notes((0..7).map(|text| text.to_string())).await;
    world.server.set_snapshot_rows_max(2);
    let client = world.client("alice").await;
    let network = Scripted::new(world.server.connect(alice()));
    let mut status = client.status();
    client.go_online(Arc::clone(&network) as _);
    let mut shown = Vec::new();
    let all = async {
        while status.borrow_and_update().connection.carrier().is_none() {
            status.changed().await.expect("the client lives");
            shown.extend(status.borrow().bootstrap);
        }
    };
    soon(all).await;
    assert!(!shown.is_empty(), "a snapshot of several chunks");
    assert!(shown.iter().all(|progress| progress.rows_total == 7 && progress.rows_done < 7), "{shown:?}");
    assert!(shown.is_sorted_by_key(|progress| progress.rows_done), "{shown:?}");
    assert_eq!(client.status().borrow().bootstrap, None, "it is done");
    assert_eq!(within(client.query("SELECT id FROM notes", &[])).await.len(), 7);
}

#[tokio::test]
async fn what_was_refused_can_be_inspected_retried_and_discarded() {
    let world = World::with_history().await;
    let mine = AudienceKey::new("user:alice").expect("an audience");
    let (client, network) = online(&world, "alice").await;
    within(client.sync_now()).await;
    client.go_offline();
    let kept = within(client.execute(note("kept"))).await.id;
    let left = within(client.execute(note("left"))).await.id;
    let mut changes = client.watch(["notes"]).expect("a table");
    world.server.revoke(&alice(), &mine);
    client.go_online(Arc::clone(&network) as _);
    within(client.sync_now()).await;
    assert_eq!(soon(changes.next()).await, Some(()), "their rows are gone");
    assert_eq!((client.status().borrow().pending, client.status().borrow().quarantined), (0, 2));
    client.go_offline();
    world.server.allow(&alice(), &mine);
    client.go_online(network);
    within(client.sync_now()).await;
    client.go_offline();
    assert_eq!(within(client.quarantine_export()).await.len(), 2);
    assert_eq!(within(client.fates(None, 10)).await.len(), 2);
    assert_eq!(within(client.quarantine_inspect(kept)).await.expect("it is there").patches.len(), 1);
    let again = within(client.quarantine_retry(kept)).await;
    assert!(within(client.quarantine_discard(left)).await);
    assert_eq!((client.status().borrow().pending, client.status().borrow().quarantined), (1, 0));
    let gone = client.quarantine_retry(left).await.expect_err("discarded");
    assert!(matches!(gone, ClientError::Retry(_)), "{gone}");
    client.go_online(Arc::new(world.server.connect(alice())));
    whole(&client, &world, 2).await;
    assert!(within(client.fate(again)).await.is_some());
}

/// Bob, who writes to his own audience, and is online.
async fn bob(world: &World) -> Client {
    let bob = UserId::new("bob").expect("an id");
    world.server.allow(&bob, &bobs());
    let client = open_for("bob", &world.path("bob"), quick()).await.expect("opens");
    client.go_online(Arc::new(world.server.connect(bob)));
    within(client.sync_now()).await;
    client
}

fn bobs() -> AudienceKey {
    AudienceKey::new("user:bob").expect("an audience")
}

#[tokio::test]
async fn a_membership_that_begins_during_an_upload_does_not_keep_the_upload_waiting() {
    let world = World::new();
    let (client, network) = (world.client("alice").await, Scripted::new(world.server.connect(alice())));
    // Nobody tells this device that its user's memberships changed.
    network.fault(Call::Stream, Fault::Stop);
    client.go_online(network);
    within(client.sync_now()).await;
    let bob = bob(&world).await;
    within(bob.execute(note("bob's"))).await;
    within(bob.sync_now()).await;
    world.server.allow(&alice(), &bobs());
    let mut own = within(client.execute(note("own"))).await;
    assert_eq!(within(own.confirmed()).await, Fate::Confirmed);
    let notes = within(client.query("SELECT text FROM notes ORDER BY text", &[])).await;
    assert_eq!(notes.len(), 2, "the new audience's rows are here too");
}

#[tokio::test]
async fn a_membership_that_ends_during_a_snapshot_does_not_keep_the_device_waiting() {
    let world = World::with_history().await;
    let bob = bob(&world).await;
    within(bob.execute(note("bob's"))).await;
    within(bob.sync_now()).await;
    world.server.allow(&alice(), &bobs());
    let (client, network) = (world.client("alice").await, Scripted::new(world.server.connect(alice())));
    network.let_fetch(false);
    client.go_online(Arc::clone(&network) as _);
    soon(network.called(Call::Snapshot, 1)).await;
    world.server.revoke(&alice(), &bobs());
    network.let_fetch(true);
    let mut status = client.status();
    soon(status.wait_for(|status| status.connection.carrier().is_some())).await.expect("the client lives");
    whole(&client, &world, 2).await;
}

#[tokio::test]
async fn a_busy_audience_does_not_keep_a_missed_change_of_another_one_waiting() {
    let world = World::new();
    world.server.allow(&alice(), &bobs());
    let bob = bob(&world).await;
    let phone = open(&world.path("phone"), Timing { head_check: Duration::from_millis(300), ..quick() }).await;
    let network = world.server.connect(alice());
    phone.go_online(Arc::new(network.clone()));
    within(phone.sync_now()).await;
    let (laptop, _) = online(&world, "laptop").await;
    within(laptop.sync_now()).await;
    network.lose_next_slices(1);
    let mut missed = within(laptop.execute(note("missed"))).await;
    within(missed.confirmed()).await;
    soon(async {
        for n in 0.. {
            within(bob.execute(note(format!("bob's {n}")))).await;
            within(bob.sync_now()).await;
            let found = within(phone.query("SELECT 1 FROM notes WHERE text = 'missed'", &[])).await;
            if !found.is_empty() {
                break;
            }
        }
    })
    .await;
}

/// Whether the app is the version that tags what it notes.
static TAGS: AtomicBool = AtomicBool::new(false);

/// Writes a note; with a newer version of the app, a tag too.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Grown {}

impl Action for Grown {
    const TAG: &'static str = "grown_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        insert(ctx, "notes", "grown")?;
        if TAGS.load(Ordering::SeqCst) { insert(ctx, "tags", "grown") } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_correction_that_a_slice_leads_to_is_sent_at_once() {
    let world = World::new();
    let (laptop, _) = online(&world, "laptop").await;
    // A device runs what is pending again on its first snapshot.
    within(laptop.sync_now()).await;
    laptop.go_offline();
    let seldom = Timing { head_check: Duration::from_secs(3_600), ..quick() };
    let phone = open(&world.path("phone"), seldom).await;
    phone.go_online(Arc::new(world.server.connect(alice())));
    within(phone.sync_now()).await;
    within(laptop.execute(Grown {})).await;
    TAGS.store(true, Ordering::SeqCst);
    laptop.go_online(Arc::new(world.server.connect(alice())));
    let mut tags = laptop.live_query("SELECT text FROM tags", &[]);
    soon(async { while tags.next().await.expect("the client lives").expect("reads").is_empty() {} }).await;
    assert_eq!(world.server.log().len(), 2, "the action and its correction");
}
