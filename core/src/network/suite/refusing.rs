//! Rules of what a server does not take. Nothing of a refused batch is kept.

use uuid::Uuid;

use super::device::{Device, hold, ids, note, row, seat, session, untouched};
use super::{NetworkFixture, answered};
use crate::model::{Columns, Effect, Epoch, Hlc, Value};
use crate::network::NetworkError;
use crate::wire::{FaultCode, Outcome, RejectionKind, UploadRecord};

/// The batch is rejected because of this record, for one of these kinds of reasons.
async fn assert_rejected(device: &Device, records: Vec<UploadRecord>, culprit: &UploadRecord, kinds: &[RejectionKind]) {
    match device.upload(&device.batch(records)).await {
        Outcome::Rejected { action, kind, .. } => {
            assert_eq!(action, culprit.id);
            assert!(kinds.contains(&kind), "expected one of {kinds:?}, the kind is {kind:?}");
        }
        other => panic!("expected Rejected with one of {kinds:?}, the outcome is {other:?}"),
    }
}

fn is_fault<T>(answer: &Result<T, NetworkError>, code: FaultCode) -> bool {
    matches!(answer, Err(NetworkError::Fault(fault)) if fault.code == code)
}

/// A row in an audience that the user is not in is denied, and takes the rest of its batch with it.
pub async fn a_foreign_audience_is_denied(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let carol = Device::join(fixture, "carol", &["user:carol", "project:2"]).await;
    let good = alice.action(vec![seat("s1", "project:1")]);
    for (forged, key) in [(seat("s2", "project:2"), row("seats", "s2")), (note("n1", "carol", "x"), row("notes", "n1"))]
    {
        let bad = alice.action(vec![forged]);
        assert_rejected(&alice, vec![good.clone(), bad.clone()], &bad, &[RejectionKind::Denied]).await;
        assert_eq!(fixture.server_row(&key).await, None);
    }
    assert_eq!(fixture.server_row(&row("seats", "s1")).await, None);
    assert_eq!(carol.everything().await, []);
    assert_eq!(alice.everything().await, []);
    alice.accepted(vec![good]).await;
}

/// A row that belongs to a foreign audience cannot be written under an own one, now or in its past.
pub async fn a_false_audience_is_rejected(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let mut carol = Device::join(fixture, "carol", &["project:2"]).await;
    let created = carol.action(vec![seat("s1", "project:2")]);
    carol.accepted(vec![created.clone()]).await;
    alice.clock = alice.clock.merge(carol.clock);

    let taken = alice.action(vec![hold("s1", "project:1", "alice")]);
    let kinds = [RejectionKind::Denied, RejectionKind::AudienceMismatch];
    assert_rejected(&alice, vec![taken.clone()], &taken, &kinds).await;
    let replaced = alice.action(vec![seat("s1", "project:1")]);
    let kinds = [RejectionKind::Denied, RejectionKind::AudienceMismatch, RejectionKind::Constraint];
    assert_rejected(&alice, vec![replaced.clone()], &replaced, &kinds).await;
    // Beneath the row's creation it would change nothing here, and leave a row on alice's devices that nobody else has.
    let beneath = alice.action_at(Hlc::at_millis(created.clock.millis() - 1_000), vec![seat("s1", "project:1")]);
    assert_rejected(&alice, vec![beneath.clone()], &beneath, &kinds).await;

    let expected = [("label", Value::from("s1")), ("holder", Value::Null)];
    let expected: Columns = expected.map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(fixture.server_row(&row("seats", "s1")).await, Some(expected));
    assert_eq!(ids(&carol.everything().await), [created.id]);
    assert_eq!(alice.everything().await, []);
}

/// A device belongs to the first user that used it: no other can read or write as it.
pub async fn a_foreign_device_is_refused(fixture: &impl NetworkFixture) {
    let alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let mut bob = Device::join(fixture, "bob", &["user:bob", "project:1"]).await;
    bob.client_id = alice.client_id;

    // On bob's own connection, and on one that is made for that device, if bob gets one.
    let connect = || fixture.connect(&bob.user, alice.client_id);
    let second = answered("connect", connect).await.ok();
    for network in [bob.network.clone()].into_iter().chain(second) {
        bob.network = network;
        let opened = session(&*bob.network, bob.client_id).await;
        assert!(is_fault(&opened, FaultCode::ForeignClient), "{opened:?}");
        let fetched = bob.page(&bob.cursors).await;
        assert!(is_fault(&fetched, FaultCode::ForeignClient), "{fetched:?}");
        let record = bob.action(vec![seat("s1", "project:1")]);
        let outcome = bob.upload(&bob.batch(vec![record])).await;
        let refused = matches!(&outcome, Outcome::Refused(fault) if fault.code == FaultCode::ForeignClient);
        assert!(refused, "{outcome:?}");
    }
    assert_eq!(alice.everything().await, []);
}

/// An id stands for one content, whoever sends another under it.
pub async fn an_id_with_other_content_is_rejected(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1"]).await;
    let record = alice.action(vec![seat("s1", "project:1")]);
    alice.accepted(vec![record.clone()]).await;
    bob.catch_up().await;

    let other = UploadRecord { rows: vec![seat("s2", "project:1")], ..record.clone() };
    assert_rejected(&alice, vec![other.clone()], &other, &[RejectionKind::DuplicateId]).await;
    assert_rejected(&bob, vec![other.clone()], &other, &[RejectionKind::DuplicateId]).await;
    assert_eq!(fixture.server_row(&row("seats", "s2")).await, None);
    let fetched = bob.everything().await;
    assert_eq!((ids(&fetched), &fetched[0].rows), (vec![record.id], &record.rows));
}

/// Rows out of sequence, and an effect that only corrections may have.
pub async fn a_malformed_record_is_rejected(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let mut gap = alice.action(vec![seat("s1", "project:1")]);
    gap.rows[0].sequence = 1;
    assert_rejected(&alice, vec![gap.clone()], &gap, &[RejectionKind::Malformed]).await;
    let nothing = alice.action(vec![untouched("s1", "project:1")]);
    assert_eq!(nothing.rows[0].effect, Effect::Nothing);
    assert_rejected(&alice, vec![nothing.clone()], &nothing, &[RejectionKind::Malformed]).await;
    assert_eq!(alice.everything().await, []);
}

/// Cursors and batches of another history are told so.
pub async fn another_epoch_is_told(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let current = alice.session.epoch;
    alice.session.epoch = Epoch::from_uuid(Uuid::new_v4());
    let record = alice.action(vec![seat("s1", "project:1")]);
    assert_eq!(alice.upload(&alice.batch(vec![record])).await, Outcome::EpochChanged { current });
    let fetched = alice.page(&alice.cursors).await;
    assert!(is_fault(&fetched, FaultCode::EpochChanged), "{fetched:?}");

    alice.refresh().await;
    assert_eq!(alice.everything().await, []);
}

/// A clock far in the server's future is told the server's time; restamped, the same record is accepted.
pub async fn a_clock_far_ahead_is_told(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let now = alice.session.server_time_ms;
    let far = Hlc::at_millis(now + 24 * 60 * 60 * 1000);
    let record = alice.action_at(far, vec![seat("s1", "project:1")]);
    let outcome = alice.upload(&alice.batch(vec![record.clone()])).await;
    let Outcome::ClockAhead { server_time_ms, max_ahead_ms } = outcome else {
        panic!("expected ClockAhead, the outcome is {outcome:?}");
    };
    assert!(server_time_ms >= now && max_ahead_ms > 0);
    assert_eq!(alice.everything().await, []);

    let restamped = UploadRecord { clock: Hlc::at_millis(server_time_ms), ..record };
    alice.clock = restamped.clock;
    let numbers = alice.accepted(vec![restamped.clone()]).await;
    assert!(numbers.contains_key(&restamped.id));
}
