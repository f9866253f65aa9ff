//! Messages that NATS does not carry, and work that never ends.

use synchrotron_core::model::Cursors;
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome};
use synchrotron_server::auth::Principal;
use synchrotron_testkit::{NatsOptions, NatsServer};

use crate::stack::{Stack, conf};

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
