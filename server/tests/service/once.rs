//! Accepted once, whatever is sent how often.

use synchrotron_core::model::{Effect, Value};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::fixture::{Theatre, accepted, columns, hold, note, patch, rejected, seat};

#[tokio::test]
async fn an_accepted_batch_is_in_the_tables() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let records = vec![
        alice.action(10, vec![seat("A1"), note("n1", "alice")]),
        alice.action(20, vec![hold("A1", Some("alice"))]),
        alice.action(30, vec![]),
    ];
    let ids = accepted(alice.upload(records.clone()).await);
    let numbers: Vec<_> = records.iter().map(|record| ids[&record.id]).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("alice"));
    assert_eq!(theatre.scalar("SELECT body FROM notes WHERE audience_key = 'user:alice'").await.as_deref(), Some("b"));
    assert_eq!(theatre.count("synchrotron.action_records").await, 3);
    assert_eq!(theatre.count("synchrotron.action_modified_rows").await, 3);
}

#[tokio::test]
async fn a_batch_that_comes_again_has_no_further_effect() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let first = alice.send(&batch).await;
    theatre.execute("UPDATE seats SET holder = 'untouched'").await;
    assert_eq!(alice.send(&batch).await, first);
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("untouched"));
    assert_eq!(theatre.count("synchrotron.action_records").await, 1);
}

#[tokio::test]
async fn records_that_come_again_in_another_batch_keep_their_numbers_even_behind_the_head() {
    let theatre = Theatre::open().await;
    let (alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let record = alice.action(10, vec![seat("A1")]);
    let first = accepted(alice.upload(vec![record.clone()]).await);
    bob.sync(vec![bob.action(20, vec![hold("A1", Some("bob"))])]).await;
    assert_eq!(accepted(alice.upload(vec![record.clone()]).await), first);
    let more = alice.upload(vec![record, alice.action(30, vec![])]).await;
    assert!(matches!(more, Outcome::BehindHead { .. }), "{more:?}");
}

#[tokio::test]
async fn an_id_with_other_content_is_refused() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let record = alice.action(10, vec![seat("A1")]);
    alice.upload(vec![record.clone()]).await;
    let mut other = alice.action(10, vec![seat("A2")]);
    other.id = record.id;
    assert_eq!(rejected(alice.upload(vec![other]).await).0, RejectionKind::DuplicateId);
    assert_eq!(theatre.count("seats").await, 1);
    let mut twice = alice.action(20, vec![]);
    let first = twice.clone();
    twice.rows = vec![seat("A3")];
    assert_eq!(rejected(alice.upload(vec![first, twice]).await).0, RejectionKind::DuplicateId);
}

#[tokio::test]
async fn equal_corrections_of_two_devices_are_one_record() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let book = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![book.clone()]).await;
    bob.catch_up().await;
    let set = |holder: Value| vec![patch("seats", "A1", "project:p", Effect::Insert(columns([("holder", holder)])))];
    let mine = alice.correction(alice.position(&book), set("x".into()));
    let mut same = bob.correction(alice.position(&book), set("x".into()));
    same.id = mine.id;
    let first = accepted(alice.upload(vec![mine]).await);
    assert_eq!(accepted(bob.upload(vec![same]).await), first);
}

#[tokio::test]
async fn one_bad_record_leaves_nothing_of_its_batch_and_the_answer_is_kept() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let bad = patch("seats", "A2", "project:p", Effect::Insert(columns([("label", Value::Bytes(vec![1]))])));
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")]), alice.action(20, vec![bad])]).await;
    let outcome = alice.send(&batch).await;
    assert!(matches!(&outcome, Outcome::Rejected { action, .. } if *action == batch.records[1].id), "{outcome:?}");
    theatre.assert_untouched().await;
    assert_eq!(alice.send(&batch).await, outcome);
}

#[tokio::test]
async fn outbox_slices_chain_by_audience() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let mut committed = theatre.service.committed();
    alice.upload(vec![alice.action(10, vec![seat("A1"), note("n1", "alice")])]).await;
    assert!(committed.has_changed().expect("open"));
    committed.mark_unchanged();
    alice.upload(vec![alice.action(20, vec![seat("A2")]), alice.action(30, vec![seat("A3")])]).await;
    let slices = theatre.service.unpublished_slices(10).await.expect("slices");
    let keys: Vec<&str> = slices.iter().map(|(_, slice)| slice.audience_key.as_str()).collect();
    assert_eq!(keys, ["project:p", "user:alice", "project:p"]);
    let (first, third) = (&slices[0].1, &slices[2].1);
    assert_eq!((first.prev.get(), third.prev), (0, first.through));
    assert_eq!(third.records.len(), 2);
    assert_eq!(first.records[0].rows.len(), 1, "only the audience's rows");
    assert_eq!((first.records[0].row_count, first.records[0].slices.len()), (2, 2));
    theatre.service.mark_published(&[slices[0].0, slices[1].0]).await.expect("marked");
    assert_eq!(theatre.service.unpublished_slices(10).await.expect("slices"), slices[2..]);
}
