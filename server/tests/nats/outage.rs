//! NATS away at the start, killed, back, and back empty: nothing is lost, and everyone goes on by themselves.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures::StreamExt;
use synchrotron_core::network::{Carrier, Network, NetworkError};
use synchrotron_core::wire::{Outcome, SessionRequest};
use synchrotron_server::auth::Principal;
use synchrotron_testkit::wait_for;

use crate::stack::{Device, PATIENCE, Stack, key, nats, token};

/// Commits beside NATS, as an upload over HTTP does.
async fn commit(stack: &Stack, device: &Device, seat: &str) {
    let principal = Principal { user_id: device.user.clone(), expires_at: None };
    let outcome = stack.server.service().upload(&principal, device.seat(seat, "project:1")).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

async fn outbox_is_empty(stack: &Stack) {
    let emptied = wait_for("an empty outbox", PATIENCE, async || (stack.unpublished().await == 0).then_some(()));
    emptied.await.expect("all is published");
}

async fn is_carried(device: &Device, expected: bool) {
    let mut connected = device.network.connected();
    let changed = tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected == expected)).await;
    changed.expect("in time").expect("the network lives");
}

#[tokio::test]
async fn nats_may_come_after_everyone_else() {
    let nats = nats().await;
    nats.kill().await.expect("killed");
    let stack = Stack::start_on(&nats, |_| {}).await;
    let client_id = synchrotron_core::model::ClientId::from_uuid(uuid::Uuid::new_v4());
    let network = stack.network("alice", client_id, token("alice", 3_600)).await;
    let asked = Instant::now();
    let refused = network.session(&SessionRequest { client_id }).await;
    assert!(matches!(refused, Err(NetworkError::Unavailable { carrier: Carrier::Nats, .. })), "{refused:?}");
    assert!(network.subscribe(&[]).await.is_err());
    assert!(asked.elapsed() < Duration::from_millis(500));
    assert_eq!(network.carrier(), Carrier::Offline);

    nats.restart().await.expect("started");
    let served = wait_for("a session", PATIENCE, async || network.session(&SessionRequest { client_id }).await.ok());
    served.await.expect("served");
    assert_eq!(network.carrier(), Carrier::Nats);
    let alice = stack.device("alice", &["project:1"]).await;
    alice.accepted(&alice.seat("s1", "project:1")).await;
}

#[tokio::test]
async fn after_a_kill_and_a_restart_slices_go_on() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    alice.accepted(&alice.seat("before", "project:1")).await;
    let mut prev = events.slice().await.through;
    for round in 0..3 {
        nats.kill().await.expect("killed");
        is_carried(&bob, false).await;
        nats.restart().await.expect("started");
        events.wakeup().await;
        alice.accepted(&alice.seat(&format!("after-{round}"), "project:1")).await;
        let slice = events.slice().await;
        assert_eq!(slice.prev, prev);
        prev = slice.through;
    }
}

#[tokio::test]
async fn a_call_in_flight_ends_with_the_connection() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let batch = alice.seat("s1", "project:1");
    // Nobody answers: the stream takes the upload, and no server works on it.
    let listener = stack.admin().await;
    let Stack { server, subjects, .. } = stack;
    server.shutdown().await;
    let up = subjects.up(Some(&key("project:1")), &alice.user, alice.client_id);
    let mut uploads = listener.subscribe(up.clone()).await.expect("subscribes");
    // A flush does not wait for the server; what this connection sends comes back only once the subscription is there.
    listener.publish(up, "probe".into()).await.expect("sends");
    tokio::time::timeout(PATIENCE, uploads.next()).await.expect("in time").expect("the probe");
    let killing = async {
        // The upload is on its way when it is seen.
        tokio::time::timeout(PATIENCE, uploads.next()).await.expect("in time").expect("the upload");
        nats.kill().await.expect("killed");
        Instant::now()
    };
    let (outcome, killed) = tokio::join!(alice.network.upload(&batch), killing);
    assert!(matches!(outcome, Err(NetworkError::Unavailable { carrier: Carrier::Nats, .. })), "{outcome:?}");
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
}

#[tokio::test]
async fn an_upload_that_no_stream_takes_is_told_at_once() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let admin = jetstream::new(stack.admin().await);
    let Stack { server, .. } = stack;
    server.shutdown().await;
    let names: Vec<_> = admin.stream_names().map(|name| name.expect("lists")).collect().await;
    let up = names.iter().find(|name| name.ends_with("UP")).expect("the stream of uploads");
    let refused = async |why: &str| {
        let asked = Instant::now();
        let outcome = alice.network.upload(&alice.seat("s1", "project:1")).await;
        let Err(NetworkError::Unavailable { detail, .. }) = &outcome else { panic!("{outcome:?}") };
        assert!(detail.contains(why), "{detail}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    };
    let mut config = admin.get_stream(up).await.expect("there").cached_info().config.clone();
    config.max_message_size = 16;
    admin.update_stream(config).await.expect("updated");
    refused("refuses").await;
    admin.delete_stream(up).await.expect("deleted");
    refused("no stream").await;
}

#[tokio::test]
async fn what_was_committed_in_an_outage_is_published_after_it() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    commit(&stack, &alice, "before").await;
    let mut prev = events.slice().await.through;
    outbox_is_empty(&stack).await;
    nats.kill().await.expect("killed");
    for seat in ["during-1", "during-2", "during-3"] {
        commit(&stack, &alice, seat).await;
    }
    assert_eq!(stack.unpublished().await, 3);
    nats.restart().await.expect("started");
    outbox_is_empty(&stack).await;
    // Bob may have come back too late for these: then a slice shows the gap, and the wakeup made bob fetch.
    is_carried(&bob, true).await;
    bob.network.session(&SessionRequest { client_id: bob.client_id }).await.expect("after bob's subscriptions");
    commit(&stack, &alice, "after").await;
    let mut last = events.slice().await;
    while last.records[0].rows[0].row_id.as_str() != "after" {
        assert_eq!(last.prev, prev);
        prev = last.through;
        last = events.slice().await;
    }
    assert!(last.prev >= prev);
}

#[tokio::test]
async fn streams_that_are_deleted_come_back() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    alice.accepted(&alice.seat("before", "project:1")).await;
    let first = events.slice().await;
    let admin = jetstream::new(stack.admin().await);
    let names: Vec<_> = admin.stream_names().map(|name| name.expect("lists")).collect().await;
    assert_eq!(names.len(), 2, "{names:?}");
    for name in &names {
        admin.delete_stream(name).await.expect("deleted");
    }
    let batch = alice.seat("after", "project:1");
    alice.accepted(&batch).await;
    // The newest slices come again, for whoever missed them, alone or together with the next; who has them drops them.
    let mut second = events.slice().await;
    while second.through == first.through {
        second = events.slice().await;
    }
    assert!(second.prev <= first.through, "{second:?}");
    assert_eq!(second.records.last().expect("not empty").record.id, batch.records[0].id);
    assert_eq!(stack.records().await, 2);
}

#[tokio::test]
async fn killed_servers_lose_nothing_under_load() {
    let nats = nats().await;
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let batches: Vec<_> = (0..60).map(|number| alice.seat(&number.to_string(), "project:1")).collect();
    let uploading = async {
        for batch in &batches {
            alice.accepted(batch).await;
        }
    };
    let disturbing = async {
        for expected in [10, 25, 40] {
            let reached = async || (stack.records().await >= expected).then_some(());
            wait_for("some uploads", PATIENCE, reached).await.expect("uploads go on");
            nats.kill().await.expect("killed");
            nats.restart().await.expect("started");
        }
    };
    tokio::join!(uploading, disturbing);
    assert_eq!(stack.records().await, 60);
    outbox_is_empty(&stack).await;
}
