//! Rules of the one order: late arrivals and corrections.

use super::NetworkFixture;
use super::device::{Device, accepted, hold, ids, row, seat, untouched};
use super::replica::assert_column;
use crate::model::{Hlc, RecordBody, Value};
use crate::wire::UploadRecord;

const KEY: &str = "project:1";

/// What arrives late takes its place beneath what arrived before it.
pub async fn rows_follow_the_clocks_and_not_the_arrivals(fixture: &impl NetworkFixture) {
    let alice = Device::join(fixture, "alice", &[KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY]).await;
    let base = alice.session.server_time_ms - 10_000;
    let created = alice.action_at(Hlc::at_millis(base), vec![seat("s1", KEY), seat("s2", KEY)]);
    let newer = alice.action_at(Hlc::at_millis(base + 5_000), vec![hold("s1", KEY, "alice")]);
    alice.accepted(vec![created, newer]).await;

    bob.catch_up().await;
    let rows = vec![hold("s1", KEY, "bob"), hold("s2", KEY, "bob")];
    let late = bob.action_at(Hlc::at_millis(base + 1_000), rows);
    bob.accepted(vec![late]).await;
    assert_column(fixture, &alice, &row("seats", "s1"), "holder", "alice".into()).await;
    assert_column(fixture, &alice, &row("seats", "s2"), "holder", "bob".into()).await;
}

/// A correction travels with what it amends and why, and takes effect at the action that it amends: later writes keep
/// their say.
pub async fn a_correction_amends_its_action_and_keeps_later_writes(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &[KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY]).await;
    let seats = row("seats", "s1");
    let created = alice.action(vec![seat("s1", KEY)]);
    let first = alice.action(vec![hold("s1", KEY, "alice")]);
    let second = alice.action(vec![hold("s1", KEY, "carol")]);
    alice.accepted(vec![created, first.clone(), second.clone()]).await;
    bob.catch_up().await;

    let amends = alice.position_of(&first);
    let removal = bob.correction(amends, Some("seat s1 is taken"), vec![untouched("s1", KEY)]);
    bob.accepted(vec![removal.clone()]).await;
    let fetched = alice.catch_up().await.pop().expect("the correction is the newest record");
    assert_eq!((fetched.record.id, &fetched.rows), (removal.id, &removal.rows));
    assert_eq!(fetched.record.user_id, bob.user);
    let reason = Some("seat s1 is taken".to_owned());
    assert_eq!(fetched.record.body, RecordBody::Correction { amends, reason });
    assert_column(fixture, &alice, &seats, "holder", "carol".into()).await;

    let removal = bob.correction(alice.position_of(&second), None, vec![untouched("s1", KEY)]);
    bob.accepted(vec![removal]).await;
    assert_column(fixture, &alice, &seats, "holder", Value::Null).await;

    let newer = bob.correction(alice.position_of(&second), None, vec![hold("s1", KEY, "dave")]);
    bob.accepted(vec![newer]).await;
    assert_column(fixture, &alice, &seats, "holder", "dave".into()).await;
}

/// Corrections that say the same are one record, whoever sends it and with whatever clock.
pub async fn equal_corrections_are_one_record(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &[KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY]).await;
    let created = alice.action(vec![seat("s1", KEY)]);
    let held = alice.action(vec![hold("s1", KEY, "alice")]);
    alice.accepted(vec![created.clone(), held.clone()]).await;
    bob.catch_up().await;

    let amends = alice.position_of(&held);
    let by_alice = alice.correction(amends, None, vec![hold("s1", KEY, "carol")]);
    let by_bob = UploadRecord { clock: bob.clock.tick(bob.session.server_time_ms), ..by_alice.clone() };
    let first = alice.accepted(vec![by_alice.clone()]).await;
    bob.catch_up().await;
    assert_eq!(accepted(bob.upload(&bob.batch(vec![by_bob])).await), first);
    assert_eq!(ids(&bob.everything().await), [created.id, held.id, by_alice.id]);
    assert_column(fixture, &bob, &row("seats", "s1"), "holder", "carol".into()).await;
}
