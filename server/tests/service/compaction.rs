//! Old records leave the log, and nothing else changes.

use std::time::Duration;

use sqlx_core::executor::Executor;
use synchrotron_core::model::{BatchId, Cursor, Effect, Value};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome, SnapshotRequest};
use synchrotron_server::compaction::{CompactionError, Report, run_once};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fixture::{Device, Theatre, accepted, audience, columns, hold, note, patch, rejected, remove, seat};

pub(crate) async fn open() -> Theatre {
    Theatre::open_with("", &[], |settings| {
        settings.compaction.pause = Duration::ZERO;
        settings.compaction.lock_within = Duration::from_millis(20);
        settings.compaction.batch_records = 2;
    })
    .await
}

pub(crate) async fn compact(theatre: &Theatre) -> Report {
    run_once(&theatre.service, &CancellationToken::new()).await.expect("compacts")
}

/// Lets the records through this number have arrived 30 days ago.
pub(crate) async fn age(theatre: &Theatre, through: i64) {
    let sql = "UPDATE synchrotron.action_records SET created_at = now() - interval '30 days' WHERE server_ingest_id <=";
    theatre.execute(&format!("{sql} {through}")).await;
}

async fn numbers(theatre: &Theatre) -> String {
    let sql =
        "SELECT string_agg(server_ingest_id::text, ',' ORDER BY server_ingest_id) FROM synchrotron.action_records";
    theatre.scalar(sql).await.unwrap_or_default()
}

fn retained(session: &synchrotron_core::wire::Session, key: &str) -> i64 {
    let found = session.audiences.iter().find(|head| head.audience_key == audience(key));
    found.expect("the user is in it").retained.get()
}

async fn fetch_from(device: &Device, cursor: i64) -> Result<usize, FaultCode> {
    let epoch = device.session().await.epoch;
    let cursors = [(audience("project:p"), Cursor::new(cursor))].into();
    let request = FetchRequest { client_id: device.client_id, epoch, cursors };
    let page = device.service.fetch(&device.principal, request).await;
    page.map(|page| page.records.len()).map_err(|fault| fault.code)
}

fn too_old(outcome: Outcome) -> i64 {
    match outcome {
        Outcome::TooOld { oldest_ms } => oldest_ms,
        other => panic!("not too old: {other:?}"),
    }
}

/// Clocks of devices play no role: the record that stays has the oldest.
#[tokio::test]
async fn cmp_01_records_older_than_the_retention_are_gone() {
    let theatre = open().await;
    let mut alice = theatre.device("alice");
    for (at, row) in [(30, "A1"), (20, "A2"), (10, "A3")] {
        alice.sync(vec![alice.action(at, vec![seat(row)])]).await;
    }
    let epoch = alice.session().await.epoch;
    age(&theatre, 2).await;
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.rows, report.images, report.left), (2, 2, 0, 0), "{report:?}");
    assert_eq!(numbers(&theatre).await, "3");
    for table in ["action_modified_rows", "action_audiences"] {
        assert_eq!(theatre.count(&format!("synchrotron.{table}")).await, 1, "{table}");
    }
    assert_eq!(theatre.count("seats").await, 3);
    assert_eq!(compact(&theatre).await.records, 0, "again: nothing is old");
    assert_eq!(alice.session().await.epoch, epoch);
}

/// Who lacks another device's record is told; who wrote all there was, or has seen it, is not.
#[tokio::test]
async fn cmp_02_only_a_device_that_lacks_something_is_sent_to_a_snapshot() {
    let theatre = open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    for row in ["A1", "A2"] {
        alice.sync(vec![alice.action(10, vec![seat(row)])]).await;
    }
    bob.sync(vec![bob.action(20, vec![seat("B1")])]).await;
    age(&theatre, 2).await;
    compact(&theatre).await;
    let phone = theatre.device("alice");
    assert_eq!((retained(&alice.session().await, "project:p"), retained(&phone.session().await, "project:p")), (0, 2));
    assert_eq!(fetch_from(&alice, 0).await, Ok(1), "the sole writer has what is gone");
    assert_eq!(fetch_from(&bob, 1).await, Err(FaultCode::Compacted));
    assert_eq!(fetch_from(&bob, 2).await, Ok(1));
    age(&theatre, 3).await;
    compact(&theatre).await;
    assert_eq!((retained(&alice.session().await, "project:p"), retained(&bob.session().await, "project:p")), (3, 2));
    let mut basis = phone.batch(vec![phone.action(50, vec![])]).await;
    basis.basis = [(audience("project:p"), Cursor::new(2))].into();
    assert!(matches!(phone.send(&basis).await, Outcome::BehindHead { .. }), "what is gone is not passed by");
}

#[tokio::test]
async fn cmp_04_no_retention_keeps_everything() {
    for retention in [None, Some(Duration::ZERO)] {
        let theatre = Theatre::open_with("", &[], |settings| settings.compaction.retention = retention).await;
        let mut alice = theatre.device("alice");
        alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
        age(&theatre, 1).await;
        assert_eq!(compact(&theatre).await, Report::default());
        assert_eq!(numbers(&theatre).await, "1");
    }
}

/// Whatever keeps Postgres from deleting is an error, and nothing is half deleted.
#[tokio::test]
async fn cmp_06_what_cannot_be_deleted_is_told() {
    let theatre = open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    age(&theatre, 1).await;
    let keep = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER keep BEFORE DELETE ON synchrotron.action_records FOR EACH ROW EXECUTE FUNCTION keep()";
    theatre.execute(keep).await;
    let error = run_once(&theatre.service, &CancellationToken::new()).await.expect_err("kept");
    assert!(matches!(error, CompactionError::NotDeleted { expected: 1, actual: 0 }), "{error}");
    assert_eq!(theatre.count("synchrotron.action_modified_rows").await, 1);
    assert_eq!(
        (theatre.count("synchrotron.compacted_records").await, retained(&alice.session().await, "project:p")),
        (0, 0)
    );
}

/// CMP-07, CMP-09: floors are of audiences; numbers that were never given to a record mean nothing.
#[tokio::test]
async fn cmp_07_cmp_09_new_users_quiet_audiences_and_gaps_need_no_snapshot() {
    let theatre = open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    theatre.execute("SELECT nextval('synchrotron.server_ingest_ids') FROM generate_series(1, 5)").await;
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    theatre.execute("SELECT nextval('synchrotron.server_ingest_ids') FROM generate_series(1, 5)").await;
    bob.sync(vec![bob.action(20, vec![note("n", "bob")])]).await;
    assert_eq!(fetch_from(&theatre.device("bob"), 0).await, Ok(2));
    age(&theatre, 6).await;
    assert_eq!(compact(&theatre).await.records, 1);
    assert_eq!(retained(&theatre.device("bob").session().await, "user:bob"), 0);
    theatre.execute("INSERT INTO project_members VALUES ('new', 'dora')").await;
    let dora = theatre.device("dora");
    assert_eq!(retained(&dora.session().await, "project:new"), 0);
    assert_eq!(fetch_from(&dora, 0).await, Ok(0));
}

/// CMP-10, LATE-06: above the compacted position what is late finds its place, on an image; at and beneath it is too old.
#[tokio::test]
async fn cmp_10_late_06_late_work_folds_above_what_is_gone_and_is_too_old_beneath() {
    let theatre = open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let made = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("b30"))])]).await;
    let newest = alice.action(50, vec![hold("A1", Some("a50"))]);
    alice.sync(vec![newest.clone()]).await;
    age(&theatre, 2).await;
    assert_eq!(compact(&theatre).await.images, 1);
    bob.cursors = alice.cursors.clone();
    bob.catch_up().await;
    assert_eq!(too_old(bob.upload(vec![bob.action(29, vec![seat("B1")])]).await), 31, "another row, the same audience");
    assert_eq!(too_old(bob.upload(vec![bob.correction(alice.position(&made), vec![remove("A1")])]).await), 31);
    let late = patch("seats", "A1", "project:p", Effect::Update(columns([("label", "late".into())])));
    bob.sync(vec![bob.action(40, vec![late])]).await;
    let gone = patch("seats", "A1", "project:p", Effect::Nothing);
    bob.sync(vec![bob.correction(alice.position(&newest), vec![gone])]).await;
    let row = "SELECT label || ' ' || holder FROM seats";
    assert_eq!(theatre.scalar(row).await.as_deref(), Some("late b30"), "what was beneath the correction is back");
    age(&theatre, 100).await;
    assert_eq!(compact(&theatre).await.left, 0);
    assert_eq!((theatre.count("synchrotron.row_images").await, numbers(&theatre).await.as_str()), (0, ""));
    assert_eq!(theatre.scalar(row).await.as_deref(), Some("late b30"));
}

/// An action and what amends it are one: while the newest is young, all stay, and what came after goes all the same.
#[tokio::test]
async fn an_action_goes_together_with_what_amends_it() {
    let theatre = open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let amended = alice.action(10, vec![seat("A1"), seat("A2")]);
    alice.sync(vec![amended.clone()]).await;
    let at = alice.position(&amended);
    bob.sync(vec![bob.correction(at, vec![remove("A2")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("bob"))])]).await;
    alice.sync(vec![alice.correction(at, vec![patch("seats", "A2", "project:p", Effect::Nothing)])]).await;
    age(&theatre, 3).await;
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.left, numbers(&theatre).await.as_str()), (1, 2, "1,2,4"));
    assert_eq!(theatre.count("synchrotron.row_images WHERE row_id = 'A1' AND columns IS NOT NULL").await, 1);
    bob.catch_up().await;
    assert_eq!(too_old(bob.upload(vec![bob.correction(at, vec![remove("A1")])]).await), 31, "the image is final");
    age(&theatre, 4).await;
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.left, numbers(&theatre).await.as_str()), (3, 0, ""));
    assert_eq!(theatre.scalar("SELECT string_agg(id || holder, ',') FROM seats").await.as_deref(), Some("A1bob"));
}

/// A lost answer is given again after the record is gone, and nothing is done twice.
#[tokio::test]
async fn ids_are_remembered_for_longer_than_records() {
    let theatre = open().await;
    let mut alice = theatre.device("alice");
    let mut batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let first = accepted(alice.send(&batch).await);
    alice.sync(vec![alice.action(20, vec![remove("A1")])]).await;
    age(&theatre, 2).await;
    let denied = vec![alice.action(30, vec![note("n", "bob")])];
    rejected(alice.upload(denied).await);
    theatre.execute("UPDATE synchrotron.upload_outcomes SET created_at = now() - interval '30 days'").await;
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.outcomes), (2, 1), "what was accepted, the log itself tells");
    assert_eq!(accepted(alice.send(&batch).await), first);
    batch.batch_id = BatchId::from_uuid(Uuid::new_v4());
    assert_eq!(accepted(alice.send(&batch).await), first);
    // What is gone is too old for nobody who sends it again, also not for what comes with it.
    let both = alice.batch(vec![batch.records[0].clone(), alice.action(30, vec![seat("A2")])]).await;
    assert_eq!(accepted(alice.send(&both).await).len(), 2);
    assert_eq!(theatre.count("seats").await, 1);
    let id = batch.records[0].id;
    let request = SnapshotRequest {
        client_id: alice.client_id,
        epoch: batch.epoch,
        audiences: vec![audience("project:p")],
        ids: vec![id],
        resume: None,
    };
    let chunk = alice.service.snapshot(&alice.principal, request).await.expect("a chunk");
    assert_eq!(chunk.header.expect("the first").known, first);
    theatre.execute("UPDATE synchrotron.compacted_records SET compacted_at = now() - interval '400 days'").await;
    assert_eq!(compact(&theatre).await.ids, 2);
    batch.batch_id = BatchId::from_uuid(Uuid::new_v4());
    assert_eq!(too_old(alice.send(&batch).await), 21, "whether it was done is not known: it is not taken as it is");
}

/// One that touches nothing has no place that could be too old: only its id tells.
#[tokio::test]
async fn an_action_without_rows_is_not_taken_twice() {
    let theatre = open().await;
    let alice = theatre.device("alice");
    let batch = alice.batch(vec![alice.action(10, vec![])]).await;
    let first = accepted(alice.send(&batch).await);
    age(&theatre, 1).await;
    assert_eq!(compact(&theatre).await.records, 1);
    assert_eq!(accepted(alice.send(&batch).await), first);
    theatre.execute("UPDATE synchrotron.compacted_records SET compacted_at = now() - interval '400 days'").await;
    assert_eq!(compact(&theatre).await.ids, 1);
    assert_eq!(too_old(alice.send(&batch).await), 11, "whether it was done is not known any more");
}

/// A row that is gone is not made again beneath its end, also not for another audience, which knows nothing of it.
#[tokio::test]
async fn a_removed_row_does_not_come_back_beneath_its_removal() {
    let theatre = open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    alice.sync(vec![alice.action(30, vec![remove("A1")])]).await;
    age(&theatre, 2).await;
    assert_eq!(compact(&theatre).await.images, 1, "which says that it is absent");
    bob.cursors = alice.session().await.audiences.into_iter().map(|head| (head.audience_key, head.head)).collect();
    let moved = || patch("seats", "A1", "project:q", Effect::Insert(columns([("label", Value::Null)])));
    assert_eq!(too_old(bob.upload(vec![bob.action(20, vec![moved()])]).await), 31);
    bob.sync(vec![bob.action(40, vec![moved()])]).await;
    assert_eq!(theatre.count("seats WHERE audience_key = 'project:q'").await, 1);
}

/// A slice of which something is gone goes without records, so that its readers fetch; later it is dropped.
#[tokio::test]
async fn slices_outlive_neither_their_records_nor_their_time() {
    let theatre = open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")]), alice.action(20, vec![seat("A2")])]).await;
    alice.sync(vec![alice.action(30, vec![seat("A3")])]).await;
    age(&theatre, 1).await;
    compact(&theatre).await;
    let slices = theatre.service.unpublished_slices(10).await.expect("served");
    assert_eq!(slices.iter().map(|(_, slice)| slice.records.len()).collect::<Vec<_>>(), [0, 1]);
    theatre.execute("UPDATE synchrotron.outbox SET created_at = now() - interval '2 days' WHERE prev = 0").await;
    assert_eq!(compact(&theatre).await.slices, 1);
    assert_eq!(theatre.service.unpublished_slices(10).await.expect("served").len(), 1);
}

#[tokio::test]
async fn a_device_is_forgotten_with_what_is_known_of_it() {
    let theatre = open().await;
    let (alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.session().await;
    bob.session().await;
    let long_ago = "SET used_at = now() - interval '400 days' WHERE user_id <> ''";
    theatre.execute(&format!("UPDATE synchrotron.clients {long_ago}")).await;
    bob.session().await;
    assert_eq!(compact(&theatre).await.clients, 1);
    let left = theatre.scalar("SELECT string_agg(user_id, ',' ORDER BY user_id) FROM synchrotron.clients").await;
    assert_eq!(left.as_deref(), Some(",bob"), "the server's own device has no user, and stays");
}

/// Uploads go first: what they hold is left for later, and so is everything while another server works.
#[tokio::test]
async fn compaction_gives_way() {
    let theatre = open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    age(&theatre, 1).await;
    let mut upload = theatre.pool.begin().await.expect("begins");
    upload.execute("SELECT synchrotron.lock_heads(ARRAY['project:p'], '{}')").await.expect("locks");
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.left), (0, 1));
    upload.rollback().await.expect("ends");
    let mut other = theatre.pool.begin().await.expect("begins");
    other.execute("SELECT pg_advisory_xact_lock(x'53594e4348524f01'::bigint)").await.expect("locks");
    let report = compact(&theatre).await;
    assert_eq!((report.records, report.elsewhere), (0, true));
    other.rollback().await.expect("ends");
    assert_eq!(compact(&theatre).await.records, 1);
}
