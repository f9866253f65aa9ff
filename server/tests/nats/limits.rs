//! Messages that NATS does not carry, work that never ends, and users who take more than their share.

use std::time::{Duration, Instant};

use futures::StreamExt;
use synchrotron_core::model::Cursors;
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome, Reply, Session, SessionRequest, decode, encode};
use synchrotron_nats::subjects::{RpcMethod, UserToken, inbox_prefix};
use synchrotron_server::auth::Principal;
use synchrotron_testkit::{NatsOptions, NatsServer};
use tokio::time::{MissedTickBehavior, timeout};

use crate::stack::{PATIENCE, Stack, conf};

/// Text of about so many bytes that takes up half of them however it is packed.
fn incompressible(bytes: usize) -> String {
    std::iter::repeat_with(|| uuid::Uuid::new_v4().simple().to_string()).take(bytes / 32).collect()
}

#[tokio::test]
async fn what_nats_does_not_carry_goes_another_way() {
    let mut options = NatsOptions::default().with_config(conf().to_string());
    options.max_payload_bytes = 32 << 10;
    let nats = NatsServer::start(options).await.expect("nats-server");
    let stack = Stack::start_on(&nats, |_| {}).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let mut events = alice.subscribe(&["project:1"]).await;
    let batch = alice.seat_labelled("large", "project:1", &incompressible(120 << 10));
    let refused = alice.network.upload(&batch).await;
    assert!(matches!(refused, Err(NetworkError::TooLarge { max: 32_768, .. })), "{refused:?}");

    // It came by another carrier.
    let principal = Principal { user_id: alice.user.clone(), expires_at: None };
    let outcome = stack.server.service().upload(&principal, batch).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    let slice = events.slice().await;
    assert!(slice.records.is_empty() && slice.through > slice.prev, "{slice:?}");
    let request = FetchRequest { client_id: alice.client_id, epoch: alice.session.epoch, cursors: Cursors::new() };
    let page = alice.network.fetch(&request).await;
    assert!(matches!(&page, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::TooLarge), "{page:?}");
}

#[tokio::test]
async fn an_upload_that_is_begun_too_often_is_refused() {
    // The first delivery is one too many.
    let stack = Stack::start_with(|api| api.deliveries_max = 0).await;
    let alice = stack.device("alice", &["project:1"]).await;
    let outcome = alice.network.upload(&alice.seat("s1", "project:1")).await.expect("an outcome");
    assert!(matches!(&outcome, Outcome::Refused(fault) if fault.code == FaultCode::Malformed), "{outcome:?}");
    assert_eq!(stack.records().await, 0);
}

/// One connection asks 10,000 times in a second: others are served as if it were not there.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_one_users_requests_keeps_nobody_else_waiting() {
    let stack = Stack::start().await;
    let (alice, mallory) = (stack.device("alice", &["project:1"]).await, stack.device("mallory", &[]).await);
    let raw = stack.raw("mallory").await;
    let subject = stack.subjects.rpc(&mallory.user, mallory.client_id, RpcMethod::Session);
    let request = encode(&SessionRequest { client_id: mallory.client_id });
    let mut answers =
        raw.subscribe(format!("{}.raw.flood", inbox_prefix(&UserToken::of(&mallory.user)))).await.expect("sends");
    let flood = tokio::spawn(async move {
        let inbox = format!("{}.raw.flood", inbox_prefix(&UserToken::of(&mallory.user)));
        let mut ticks = tokio::time::interval(Duration::from_millis(20));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            for _ in 0..200 {
                raw.publish_with_reply(subject.clone(), inbox.clone(), request.clone().into()).await.expect("sends");
            }
        }
    });
    let refused = async {
        while let Some(answer) = answers.next().await {
            let reply: Reply<Session> = decode(&answer.payload, 1 << 20).expect("a reply");
            if let Reply::Fault(fault) = reply {
                return fault;
            }
        }
        panic!("the connection ended")
    };
    let refused = timeout(PATIENCE, refused).await.expect("a refusal");
    assert_eq!(refused.code, FaultCode::Unavailable);
    for time in 0..20 {
        let served = alice.network.session(&SessionRequest { client_id: alice.client_id }).await;
        assert!(served.is_ok(), "request {time}: {served:?}");
    }
    flood.abort();
}

/// What is no upload does not stay where it keeps the uploads of others out.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_one_user_has_filled_takes_others_uploads_within_moments() {
    let stack = Stack::start().await;
    let (alice, mallory) = (stack.device("alice", &["project:1"]).await, stack.device("mallory", &[]).await);
    let raw = stack.raw("mallory").await;
    let subject = stack.subjects.up(None, &mallory.user, mallory.client_id);
    let junk = bytes::Bytes::from(incompressible(7 << 20));
    let began = Instant::now();
    // As long as something fits, it is sent.
    for (bytes, times) in [(7 << 20, 12), (200 << 10, 60), (10 << 10, 60), (1 << 10, 60), (0, 500)] {
        for _ in 0..times {
            raw.publish(subject.clone(), junk.slice(..bytes)).await.expect("sends");
        }
    }
    raw.flush().await.expect("sends");
    alice.accepted(&alice.seat("s1", "project:1")).await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}
