//! BOOT: whole devices that begin with a snapshot of a real Postgres.
//!
//! The process' memory while it hands out a large one is measured in `binary.rs`.

use std::collections::{BTreeMap, BTreeSet};

use synchrotron_core::model::{Columns, Cursors, Effect, RecordBody, RowKey};
use synchrotron_core::patch::fold;
use synchrotron_core::wire::{LogRecord, Outcome};
use synchrotron_server::settings::HeadGate;
use tokio::task::JoinHandle;

use crate::app::THEATRE;
use crate::fixture::{Theatre, columns, hold, note, patch};
use crate::snapshot::{by_key, theatre_with_chunks};

#[tokio::test]
async fn boot_01_02_a_fresh_device_takes_the_rows_and_then_the_tail() {
    let theatre = Theatre::open().await;
    let author = theatre.app("alice", THEATRE).await;
    author.run("INSERT INTO notes (id, owner, body) VALUES ('n', 'alice', 'hello')", &[]).await.expect("runs");
    author.sync().await;

    let fresh = theatre.app("alice", THEATRE).await;
    fresh.sync().await;
    assert_eq!(fresh.rows("SELECT body FROM notes").await, [columns([("body", "hello".into())])]);
    assert_eq!((fresh.count("action_records").await, fresh.count("local_undo").await), (0, 0), "nothing was replayed");
    assert_eq!((theatre.count("notes").await, theatre.count("synchrotron.action_records").await), (1, 1));

    author.run("UPDATE notes SET body = 'world'", &[]).await.expect("runs");
    author.sync().await;
    fresh.sync().await;
    assert_eq!(fresh.rows("SELECT body FROM notes").await, [columns([("body", "world".into())])]);
    assert_eq!(fresh.count("action_records").await, 1, "what came after the snapshot came by the log");
    fresh.assert_equal_to_the_server().await;
}

/// The rows that the log comes to, by arrival: clocks ascend with it in this test.
fn fold_log(records: &[LogRecord], cursors: &Cursors) -> BTreeMap<RowKey, Columns> {
    let mut rows = BTreeMap::new();
    for record in records {
        assert!(matches!(record.record.body, RecordBody::Action { .. }));
        let number = record.record.server_ingest_id.expect("accepted");
        for row in record.rows.iter().filter(|row| cursors[&row.audience_key].covers(number)) {
            if let Some(columns) = fold(rows.remove(&row.row_key()), &row.effect) {
                rows.insert(row.row_key(), columns);
            }
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn boot_05_a_snapshot_under_ingest_is_the_fold_at_its_cursors() {
    let theatre = theatre_with_chunks(|settings| settings.head_gate = HeadGate::Touched).await;
    let writers: Vec<_> = [("alice", "user:alice"), ("bob", "user:bob"), ("bob", "project:q")]
        .into_iter()
        .map(|(user, own)| tokio::spawn(write_rounds(theatre.device(user), user, own)))
        .collect();
    let mut taken = Vec::new();
    let bob = theatre.device("bob");
    while !writers.iter().all(JoinHandle::is_finished) || taken.is_empty() {
        taken.push(bob.take(&["project:p", "project:q", "user:bob"]).await);
    }
    futures::future::join_all(writers).await.into_iter().for_each(|writer| writer.expect("no panic"));
    let log = theatre.device("bob").catch_up().await;
    let mut moments = BTreeSet::new();
    for (header, rows) in &taken {
        let cursors: Cursors = header.audiences.iter().map(|told| (told.audience_key.clone(), told.cursor)).collect();
        assert!(by_key(rows) == fold_log(&log, &cursors), "the rows at {cursors:?}");
        moments.insert(cursors);
    }
    assert!(moments.len() > 1, "snapshots of {} moments only", moments.len());
}

/// Uploads again and again: a shared row, and one of its own audience.
async fn write_rounds(mut device: crate::fixture::Device, user: &'static str, own: &'static str) {
    for round in 0..25_u32 {
        device.catch_up().await;
        let seen = device.page().await.cursors;
        let at = 1_000 + seen.values().map(|cursor| cursor.get()).max().unwrap_or(0) * 10;
        let row = format!("s{:03}", (round * 7) % 100);
        let own = match own.strip_prefix("user:") {
            Some(owner) => note(&format!("{owner}{round}"), owner),
            None => {
                let values = columns([("label", "q".into()), ("holder", None::<&str>.into())]);
                patch("seats", &format!("q{round}"), own, Effect::Insert(values))
            }
        };
        let rows = vec![hold(&row, Some(&format!("{user} {round}"))), own];
        // Another writer may have been first: then this device is behind, and goes on to the next round.
        let outcome = device.upload(vec![device.action(at, rows)]).await;
        assert!(matches!(outcome, Outcome::Accepted { .. } | Outcome::BehindHead { .. }), "{outcome:?}");
    }
}

/// Answers get lost, the device asks again, and goes on where it stopped: each chunk is taken once.
#[tokio::test]
async fn boot_06_a_device_that_loses_answers_goes_on_where_it_stopped() {
    let theatre = theatre_with_chunks(|_| {}).await;
    let fresh = theatre.app_that_loses("alice", THEATRE, 3).await;
    fresh.go_online();
    let arrived = synchrotron_testkit::wait_for("the rows", crate::snapshot::PATIENCE, async || {
        (fresh.count("seats").await == 100).then_some(())
    });
    arrived.await.expect("they come, whatever is lost");
    assert!(fresh.network.chunks_lost() > 3, "{} lost", fresh.network.chunks_lost());
    fresh.assert_equal_to_the_server().await;
    assert_eq!(fresh.network.begun(), 1, "one snapshot, to its end");
}
