//! From one device's upload to another's slice.

use synchrotron_core::model::{Cursor, Cursors};
use synchrotron_core::network::{Ingress, Network};
use synchrotron_core::wire::{FetchRequest, OutcomeMessage, Slice, encode};
use synchrotron_nats::subjects::UserToken;

use crate::stack::{Stack, key};

#[tokio::test]
async fn slices_form_a_chain() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1", "project:2"]).await;
    let bob = stack.device("bob", &["project:1", "project:2"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    let mut prev = Cursor::START;
    for number in 0..20 {
        // Numbers are shared by all audiences: `prev` still names this audience's own head.
        alice.accepted(&alice.seat(&format!("other-{number}"), "project:2")).await;
        let batch = alice.seat(&format!("seat-{number}"), "project:1");
        alice.accepted(&batch).await;
        let slice = events.slice().await;
        assert_eq!((slice.epoch, &slice.audience_key), (bob.session.epoch, &key("project:1")));
        assert_eq!((slice.prev, slice.records[0].record.id), (prev, batch.records[0].id));
        assert!(slice.through > slice.prev);
        prev = slice.through;
    }
}

/// What follows the slice that was sent before is not read again: here it would not be found.
#[tokio::test]
async fn a_slice_that_follows_another_goes_without_the_outbox() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    alice.accepted(&alice.seat("first", "project:1")).await;
    let first = events.slice().await;
    stack
        .execute(
            "CREATE FUNCTION empty_outbox() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN DELETE FROM synchrotron.outbox; RETURN NULL; END $$;
             CREATE TRIGGER emptied AFTER INSERT ON synchrotron.outbox EXECUTE FUNCTION empty_outbox()",
        )
        .await;
    alice.accepted(&alice.seat("second", "project:1")).await;
    assert_eq!(events.slice().await.prev, first.through);
}

#[tokio::test]
async fn audience_keys_of_any_kind_travel() {
    let stack = Stack::start().await;
    let long = "é".repeat(200);
    let keys = ["a.b", "*", ">", "a.>", "with space", "new\nline\r\t", "🎭", "=none", "=41", "quote\"'; --", &long];
    let alice = stack.device("alice.* >\n🎭", &keys).await;
    let bob = stack.device("bob", &keys).await;
    let mut events = bob.subscribe(&keys).await;
    for (number, audience) in keys.iter().enumerate() {
        let batch = alice.seat(&format!("seat-{number}"), audience);
        alice.accepted(&batch).await;
        let slice = events.slice().await;
        assert_eq!((slice.audience_key, &slice.records[0].rows), (key(audience), &batch.records[0].rows));
    }
    let request = FetchRequest { client_id: bob.client_id, epoch: bob.session.epoch, cursors: Cursors::new() };
    let page = bob.network.fetch(&request).await.expect("served");
    assert_eq!((page.records.len(), page.cursors.len()), (keys.len(), keys.len()));
}

#[tokio::test]
async fn two_servers_share_the_work() {
    let stack = Stack::start().await;
    let second = synchrotron_server::Server::start(stack.settings.clone()).await.expect("starts");
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    for number in 0..20 {
        alice.accepted(&alice.seat(&number.to_string(), "project:1")).await;
    }
    let mut through = Cursor::START;
    let head = async {
        while stack.records().await < 20 || through < head_of(&bob).await {
            // Both may publish the same slice, or one of the other's: what matters is that none is missing at the end.
            through = through.max(events.slice().await.through);
        }
    };
    head.await;
    second.shutdown().await;
    alice.accepted(&alice.seat("after", "project:1")).await;
    while events.slice().await.through <= through {}
}

async fn head_of(device: &crate::stack::Device) -> Cursor {
    let request = synchrotron_core::wire::SessionRequest { client_id: device.client_id };
    device.network.session(&request).await.expect("served").audiences[0].head
}

#[tokio::test]
async fn what_cannot_be_read_wakes() {
    let stack = Stack::start().await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    let raw = stack.admin().await;
    let live = stack.subjects.live(&key("project:1"));
    raw.publish(live.clone(), "no slice".into()).await.expect("sends");
    events.wakeup().await;
    let foreign = Slice {
        epoch: bob.session.epoch,
        audience_key: key("project:2"),
        prev: Cursor::START,
        through: Cursor::new(1),
        records: Vec::new(),
    };
    raw.publish(live, encode(&foreign).into()).await.expect("sends");
    events.wakeup().await;
}

#[tokio::test]
async fn a_reader_who_sleeps_is_woken_by_the_overflow() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let bob = stack.device("bob", &["project:1"]).await;
    let mut events = bob.subscribe(&["project:1"]).await;
    let raw = stack.admin().await;
    let slice = Slice {
        epoch: bob.session.epoch,
        audience_key: key("project:1"),
        prev: Cursor::START,
        through: Cursor::new(1),
        records: Vec::new(),
    };
    let live = stack.subjects.live(&key("project:1"));
    for _ in 0..500 {
        raw.publish(live.clone(), encode(&slice).into()).await.expect("sends");
    }
    raw.flush().await.expect("sends");
    // Requests of bob's connection are answered after what was sent to it before.
    head_of(&bob).await;
    let mut slices = 0;
    while matches!(events.event().await, Ingress::Slice(_)) {
        slices += 1;
    }
    assert!(slices < 500, "{slices}");
    alice.accepted(&alice.seat("after", "project:1")).await;
    while events.slice().await.records.is_empty() {}
}

#[tokio::test]
async fn what_was_sent_while_no_server_ran_is_decided_later() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let batch = alice.seat("s1", "project:1");
    let raw = stack.admin().await;
    let Stack { server, nats, nats_url, subjects, settings, database } = stack;
    server.shutdown().await;
    let outcome = subjects.outcome(&UserToken::of(&alice.user), alice.client_id);
    let mut outcomes = raw.subscribe(outcome).await.expect("subscribes");
    let up = subjects.up(Some(&key("project:1")), &alice.user, alice.client_id);
    let stored = async_nats::jetstream::new(raw.clone()).publish(up, encode(&batch).into()).await;
    stored.expect("sends").await.expect("the stream is there");
    let server = synchrotron_server::Server::start(settings.clone()).await.expect("starts");
    let told = futures::StreamExt::next(&mut outcomes);
    let told = tokio::time::timeout(crate::stack::PATIENCE, told).await.expect("in time").expect("an outcome");
    let told: OutcomeMessage = synchrotron_core::wire::decode(&told.payload, 1 << 20).expect("reads");
    assert_eq!(told.batch_id, Some(batch.batch_id));
    let stack = Stack { server, nats, nats_url, subjects, settings, database };
    assert_eq!(stack.records().await, 1);
    alice.accepted(&batch).await;
    assert_eq!(stack.records().await, 1);
}
