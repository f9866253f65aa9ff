//! Rules of `upload`: numbers, idempotence, the gate.

use super::NetworkFixture;
use super::device::{Device, accepted, audience, ids, note, seat};
use crate::model::{Cursor, Cursors};
use crate::wire::Outcome;

/// An accepted upload has one number for each record, rising in the order of the batch and from batch to batch.
pub async fn accepted_records_are_numbered(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice"]).await;
    let mut records = Vec::new();
    let mut numbers = Vec::new();
    for round in 0..3 {
        let name = |index| format!("{round}-{index}");
        let batch: Vec<_> = (0..3).map(|index| alice.action(vec![note(&name(index), "alice", "x")])).collect();
        let accepted = alice.accepted(batch.clone()).await;
        assert_eq!(accepted.len(), 3);
        numbers.extend(batch.iter().map(|record| accepted[&record.id]));
        records.extend(batch.iter().map(|record| record.id));
    }
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
    assert_eq!(ids(&alice.everything().await), records);
}

/// The same batch again is answered alike and adds nothing.
pub async fn a_repeated_batch_has_one_effect(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1"]).await;
    let record = alice.action(vec![seat("s1", "project:1")]);
    let batch = alice.batch(vec![record]);
    let first = accepted(alice.upload(&batch).await);
    assert_eq!(accepted(alice.upload(&batch).await), first);

    bob.catch_up().await;
    let other = bob.action(vec![seat("s2", "project:1")]);
    bob.accepted(vec![other]).await;
    assert_eq!(accepted(alice.upload(&batch).await), first, "also when others have written since");
    assert_eq!(bob.everything().await.len(), 2);
}

/// Records whose acknowledgement was lost keep their numbers when they come again in another batch, with new ones.
pub async fn repeated_records_in_another_batch_have_one_effect(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1"]).await;
    let lost = alice.action(vec![seat("s1", "project:1")]);
    let first = alice.accepted(vec![lost.clone()]).await;
    assert_eq!(alice.accepted(vec![lost.clone()]).await, first);

    let new = alice.action(vec![seat("s2", "project:1")]);
    let second = alice.accepted(vec![lost.clone(), new.clone()]).await;
    assert_eq!(second[&lost.id], first[&lost.id]);
    assert!(second[&new.id] > first[&lost.id]);
    assert_eq!(ids(&alice.everything().await), [lost.id, new.id]);
}

/// A device that has not seen what others wrote is told the heads; nothing is kept until it has fetched.
pub async fn a_device_behind_the_head_is_told_the_heads(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1", "user:alice"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1"]).await;
    let unseen = bob.action(vec![seat("s1", "project:1")]);
    let numbers = bob.accepted(vec![unseen.clone()]).await;

    let record = alice.action(vec![seat("s2", "project:1")]);
    let outcome = alice.upload(&alice.batch(vec![record.clone()])).await;
    let heads = Cursors::from([(audience("project:1"), Cursor::through(numbers[&unseen.id]))]);
    assert_eq!(outcome, Outcome::BehindHead { heads });
    assert_eq!(ids(&bob.everything().await), [unseen.id]);

    assert_eq!(ids(&alice.catch_up().await), [unseen.id]);
    alice.accepted(vec![record.clone()]).await;
    assert_eq!(ids(&bob.catch_up().await), [unseen.id, record.id]);
}

/// A device is not behind because of what it wrote itself; another device of the same user is.
pub async fn own_uploads_leave_nobody_behind(fixture: &impl NetworkFixture) {
    let mut phone = Device::join(fixture, "alice", &["user:alice"]).await;
    let mut laptop = Device::join(fixture, "alice", &["user:alice"]).await;
    for id in ["n1", "n2", "n3"] {
        let record = phone.action(vec![note(id, "alice", "x")]);
        phone.accepted(vec![record]).await;
    }
    let record = laptop.action(vec![note("n4", "alice", "x")]);
    let outcome = laptop.upload(&laptop.batch(vec![record.clone()])).await;
    assert!(matches!(outcome, Outcome::BehindHead { .. }), "{outcome:?}");
    assert_eq!(laptop.catch_up().await.len(), 3);
    laptop.accepted(vec![record]).await;
}
