//! Plain SQL writes and uploads of the same rows, in every order.

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use synchrotron_core::model::Effect;
use synchrotron_core::wire::Outcome;

use super::{now_ms, told};
use crate::fixture::{Theatre, accepted, columns, hold, patch, rejected, remove, seat};

#[tokio::test]
async fn the_last_writer_of_a_column_is_seen_by_all_in_both_orders() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), seat("A3")])]).await;
    theatre.execute("UPDATE seats SET holder = 'job' WHERE id = 'A1'").await;
    bob.sync(vec![bob.action(20, vec![hold("A1", Some("bob")), hold("A2", Some("bob"))])]).await;
    theatre.execute("UPDATE seats SET holder = 'job' WHERE id = 'A2'").await;
    theatre.execute("UPDATE seats SET holder = 'job' WHERE id = 'A3'").await;
    theatre.pick_up().await;
    bob.sync(vec![bob.action(now_ms() + 1_000, vec![hold("A3", Some("bob"))])]).await;
    let holders = "SELECT string_agg(holder, ' ' ORDER BY id) FROM seats";
    assert_eq!(theatre.scalar(holders).await.as_deref(), Some("bob job bob"));
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// An upload that is older than a published write keeps its say on what that did not write.
#[tokio::test]
async fn late_uploads_fold_beneath_what_was_published() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    theatre.execute("UPDATE seats SET holder = 'job' WHERE id = 'A1'; DELETE FROM seats WHERE id = 'A2'").await;
    theatre.pick_up().await;
    let relabel = patch("seats", "A1", "project:p", Effect::Update(columns([("label", "late".into())])));
    alice.sync(vec![alice.action(20, vec![relabel, hold("A1", Some("late")), hold("A2", Some("late"))])]).await;
    let row = theatre.scalar("SELECT string_agg(id || ' ' || label || ' ' || holder, ',') FROM seats").await;
    assert_eq!(row.as_deref(), Some("A1 late job"));
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// Between a write and its record, the log still has the row as it was.
#[tokio::test]
async fn late_uploads_do_not_take_back_what_is_not_published_yet() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), seat("A3")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", None), hold("A2", None), hold("A3", None)])]).await;
    theatre.execute("DELETE FROM seats WHERE id = 'A1'").await;
    theatre.execute("UPDATE seats SET audience_key = 'project:q' WHERE id = 'A2'").await;
    let relabel = |row| patch("seats", row, "project:p", Effect::Update(columns([("label", "late".into())])));
    alice.sync(vec![alice.action(20, vec![relabel("A1"), relabel("A2"), relabel("A3")])]).await;
    let rows = "SELECT string_agg(id || ' ' || audience_key || ' ' || label, ',' ORDER BY id) FROM seats";
    let expected = Some("A2 project:q A2,A3 project:p late");
    assert_eq!(theatre.scalar(rows).await.as_deref(), expected);
    theatre.pick_up().await;
    assert_eq!(theatre.scalar(rows).await.as_deref(), expected);
    theatre.assert_in_step(&["alice", "bob"]).await;
}

#[tokio::test]
async fn uploads_of_rows_that_plain_writes_removed_or_made() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), seat("A3")])]).await;
    theatre
        .execute("DELETE FROM seats WHERE id <> 'A3'; INSERT INTO seats VALUES ('A4', 'job', 'job', 'project:p')")
        .await;
    theatre.execute("UPDATE seats SET label = 'job' WHERE id = 'A3'").await;
    // One is written, one made again, one removed, one made that is there.
    let rows = vec![hold("A1", Some("alice")), seat("A2"), remove("A3"), seat("A4")];
    alice.sync(vec![alice.action(20, rows)]).await;
    theatre.pick_up().await;
    assert_eq!(theatre.scalar("SELECT string_agg(id, ',' ORDER BY id) FROM seats").await.as_deref(), Some("A2,A4"));
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// Numbers are drawn when rows are written, and seen when they are committed.
#[tokio::test]
async fn a_long_transaction_is_neither_waited_for_nor_passed_over() {
    let theatre = Theatre::open().await;
    let mut bob = theatre.device("bob");
    let mut long = theatre.pool.acquire().await.expect("connects");
    let mut long = long.begin().await.expect("begins");
    long.execute("INSERT INTO seats VALUES ('long', 'l', 'h', 'project:p')").await.expect("inserts");
    theatre.execute("INSERT INTO seats VALUES ('short', 'l', 'h', 'project:p')").await;
    assert_eq!(theatre.pick_up().await, 1);
    assert_eq!(told(&bob.catch_up().await), ["short INSERT"]);
    accepted(bob.upload(vec![bob.action(now_ms(), vec![seat("B1")])]).await);
    long.commit().await.expect("commits");
    assert_eq!(theatre.pick_up().await, 1);
    assert_eq!(told(&bob.catch_up().await), ["long INSERT"]);
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// A device that cannot have seen that its row was moved is not told that its action can never be.
#[tokio::test]
async fn an_upload_on_a_row_that_plain_sql_has_moved_waits_until_that_is_published() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    theatre.execute("UPDATE seats SET audience_key = 'project:q' WHERE id = 'A1'").await;
    let held = alice.action(20, vec![hold("A1", Some("alice"))]);
    assert!(matches!(alice.upload(vec![held.clone()]).await, Outcome::Retry { .. }));
    let lying = patch("seats", "A2", "project:q", Effect::Delete);
    rejected(alice.upload(vec![alice.action(21, vec![lying])]).await);
    theatre.pick_up().await;
    assert!(matches!(alice.upload(vec![held]).await, Outcome::BehindHead { .. }), "now it can see why");
}
