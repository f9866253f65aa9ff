//! Who says what: devices, histories, clocks.

use synchrotron_core::model::{BatchId, Epoch};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome, SessionRequest};
use uuid::Uuid;

use crate::fixture::{Theatre, principal, seat};

#[tokio::test]
async fn a_device_belongs_to_its_first_user() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let bob = principal("bob");
    let outcome = theatre.service.upload(&bob, batch.clone()).await;
    assert!(matches!(&outcome, Outcome::Refused(fault) if fault.code == FaultCode::ForeignClient), "{outcome:?}");
    let session = SessionRequest { client_id: alice.client_id };
    assert_eq!(theatre.service.session(&bob, session).await.expect_err("foreign").code, FaultCode::ForeignClient);
    let fetch = FetchRequest { client_id: alice.client_id, epoch: batch.epoch, cursors: alice.cursors.clone() };
    assert_eq!(theatre.service.fetch(&bob, fetch).await.expect_err("foreign").code, FaultCode::ForeignClient);
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn another_history_is_refused() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let mut batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let current = batch.epoch;
    batch.epoch = Epoch::from_uuid(Uuid::nil());
    assert_eq!(alice.send(&batch).await, Outcome::EpochChanged { current });
    let fetch = FetchRequest { client_id: alice.client_id, epoch: batch.epoch, cursors: alice.cursors.clone() };
    let fault = theatre.service.fetch(&alice.principal, fetch).await.expect_err("another history");
    assert_eq!(fault.code, FaultCode::EpochChanged);
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn a_clock_too_far_ahead_is_sent_back() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let server_time_ms = alice.session().await.server_time_ms;
    let outcome = alice.upload(vec![alice.action(server_time_ms + 120_000, vec![seat("A1")])]).await;
    assert!(matches!(outcome, Outcome::ClockAhead { max_ahead_ms: 60_000, .. }), "{outcome:?}");
    theatre.assert_untouched().await;
    let mut batch = alice.batch(vec![alice.action(server_time_ms + 30_000, vec![seat("A1")])]).await;
    batch.batch_id = BatchId::from_uuid(Uuid::nil());
    assert!(matches!(alice.send(&batch).await, Outcome::Accepted { .. }));
}
