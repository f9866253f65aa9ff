//! Rules of `session` and `fetch`.

use std::collections::BTreeSet;

use super::NetworkFixture;
use super::device::{Device, audience, ids, note, seat};
use crate::model::{ActionRecord, Cursor, Cursors, Patch, SliceTag};
use crate::wire::{AudienceHead, LogRecord};

/// A session reply names the user that the connection proves, and exactly its audiences with their heads, in order.
pub async fn a_session_names_the_user_and_its_heads(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1", "project:2"]).await;
    assert_eq!(alice.session.user_id, alice.user);
    assert_eq!(alice.session.epoch, bob.session.epoch, "one server, one history");

    let record = bob.action(vec![seat("s1", "project:1")]);
    let numbers = bob.accepted(vec![record.clone()]).await;
    let other = bob.action(vec![seat("s2", "project:2")]);
    bob.accepted(vec![other]).await;

    let head = Cursor::through(numbers[&record.id]);
    let expected = [("project:1", head), ("user:alice", Cursor::START)];
    let expected =
        expected.map(|(key, head)| AudienceHead { audience_key: audience(key), head, retained: Cursor::START });
    assert_eq!(alice.refresh().await.audiences, expected);
}

/// A member fetches the record with its rows that it may see, and learns nothing else of it but how many rows and slices
/// there are.
pub async fn a_fetch_brings_the_users_audiences_only(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let bob = Device::join(fixture, "bob", &["user:bob", "project:1"]).await;
    let both = alice.action(vec![note("n1", "alice", "mine"), seat("s1", "project:1")]);
    let private = alice.action(vec![note("n2", "alice", "mine too")]);
    let numbers = alice.accepted(vec![both.clone(), private.clone()]).await;

    let (fetched, cursors) = bob.everything_after(&Cursors::new()).await;
    let mut slices = ["project:1", "user:alice"].map(|key| SliceTag::of(both.id, &audience(key))).to_vec();
    slices.sort_unstable();
    let expected = LogRecord {
        record: ActionRecord {
            id: both.id,
            clock: both.clock,
            client_id: alice.client_id,
            user_id: alice.user.clone(),
            server_ingest_id: Some(numbers[&both.id]),
            trace_parent: None,
            body: both.body.clone(),
        },
        row_count: 2,
        slices,
        rows: vec![Patch { sequence: 1, ..seat("s1", "project:1") }],
    };
    assert_eq!(fetched, [expected]);
    let reached = [("project:1", Cursor::through(numbers[&both.id])), ("user:bob", Cursor::START)];
    assert_eq!(cursors, Cursors::from(reached.map(|(key, cursor)| (audience(key), cursor))));

    let own = alice.everything().await;
    assert_eq!(ids(&own), [both.id, private.id], "an author fetches its own records too");
    assert_eq!(own[0].rows, both.rows);
}

/// Old cursors bring the same again; cursors at the heads bring nothing.
pub async fn a_fetch_repeats_itself(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let records = vec![alice.action(vec![seat("s1", "project:1")]), alice.action(vec![note("n1", "alice", "x")])];
    alice.accepted(records).await;
    let first = alice.catch_up().await;
    assert_eq!(first.len(), 2);
    assert_eq!(alice.everything().await, first);
    assert_eq!(alice.catch_up().await, []);

    let without_project = Cursors::from([(audience("user:alice"), alice.cursors[&audience("user:alice")])]);
    let (again, cursors) = alice.everything_after(&without_project).await;
    assert_eq!(again, first[..1], "an audience that is not named starts from the beginning");
    assert_eq!(cursors, alice.cursors);
}

/// Whatever the size of pages, following them brings every record once and ends at the heads.
pub async fn pages_reach_every_record(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", "project:1"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1", "project:2"]).await;
    let body = "x".repeat(4_500);
    let mut visible = BTreeSet::new();
    for round in 0..6 {
        let name = |index: i32| format!("{round}-{index}");
        let records: Vec<_> = (0..50)
            .map(|index| match index % 2 {
                0 => alice.action(vec![seat(&name(index), "project:1"), note(&name(index), "alice", &body)]),
                _ => alice.action(vec![note(&name(index), "alice", &body)]),
            })
            .collect();
        visible.extend(records.iter().filter(|record| record.rows.len() == 2).map(|record| record.id));
        alice.accepted(records).await;
    }
    assert_eq!(alice.catch_up().await.len(), 300);
    let fetched = bob.catch_up().await;
    assert_eq!(ids(&fetched).into_iter().collect::<BTreeSet<_>>(), visible);
    assert!(fetched.iter().all(|record| record.rows.len() == 1 && record.row_count == 2));
    for device in [&mut alice, &mut bob] {
        let heads = device.refresh().await.audiences.clone().into_iter();
        assert_eq!(device.cursors, heads.map(|audience| (audience.audience_key, audience.head)).collect());
    }
}
