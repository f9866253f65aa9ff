//! Recovery at the engine: the doctor, work that the server cannot take yet, copies, sign-out.

use std::collections::BTreeMap;

use rusqlite::Connection;
use synchrotron_core::engine::{Engine, ExecuteError, Finding, Held, Limits, SignOutError, Unsent};
use synchrotron_core::model::{
    ActionRecord, BatchId, ClientId, Cursor, Cursors, Epoch, ServerIngestId, SnapshotId, UserId,
};
use synchrotron_core::store::{Fate, QuarantineKind, SqliteSettings, SqliteStore};
use synchrotron_core::wire::{
    FetchPage, LogRecord, Outcome, RejectionKind, Session, SnapshotAudience, SnapshotChunk, SnapshotHeader,
    SnapshotPosition, UploadRecord,
};
use uuid::Uuid;

use crate::support::{Device, NOW, SCHEMA, settings, tables};

const LIST: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')";
const RENAME: &str = "UPDATE lists SET name = 'two' WHERE id = 'l'";
const NOTE: &str = "INSERT INTO notes (id, owner, title) VALUES ('n', 'alice', 'mine')";

/// Uploads all that is ready; the server takes it.
fn accept_all(device: &mut Device) {
    let sent = device.batch().expect("something is pending");
    let ids: BTreeMap<_, _> =
        sent.batch.records.iter().zip(1..).map(|(record, n)| (record.id, ServerIngestId::new(n))).collect();
    device.engine.conclude(&sent, &Outcome::Accepted { ids }, NOW).expect("concludes");
}

#[test]
fn doc_01_the_doctor_is_silent_in_healthy_traffic_and_changes_nothing() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    accept_all(&mut device);
    device.run(&[RENAME, NOTE]).expect("runs");
    let before = (device.rows("SELECT * FROM lists"), device.pending());
    let report = device.engine.check().expect("reads");
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.digests.values().map(|(rows, _)| rows).sum::<u64>(), 1, "pending work is not in the digests");
    assert_eq!((device.rows("SELECT * FROM lists"), device.pending()), before);
}

#[test]
fn doc_a_row_that_history_does_not_make_is_found_by_name() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    let vandal = Connection::open(device.path()).expect("opens");
    vandal
        .execute_batch("DROP TRIGGER synchrotron_update_lists; UPDATE lists SET name = 'vandalised'")
        .expect("somebody who means it can");
    let findings = device.engine.check().expect("reads").findings;
    assert!(matches!(&findings[..], [Finding::RowDiffers { row }] if row.row_id.as_str() == "l"), "{findings:?}");
}

#[test]
fn doc_a_row_in_another_audience_than_its_history_gives_is_found_by_name() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    let vandal = Connection::open(device.path()).expect("opens");
    vandal
        .execute_batch(
            "DROP TRIGGER synchrotron_update_lists; DROP TRIGGER synchrotron_move_lists; \
             UPDATE lists SET audience_key = 'user:alice'",
        )
        .expect("somebody who means it can");
    let findings = device.engine.check().expect("reads").findings;
    assert!(matches!(&findings[..], [Finding::RowDiffers { row }] if row.row_id.as_str() == "l"), "{findings:?}");
}

#[test]
fn doc_lost_sync_rows_are_found_at_the_start_of_a_pass_and_lead_to_a_snapshot() {
    let mut device = Device::new();
    device.begin_session();
    device.run(&[LIST]).expect("runs");
    accept_all(&mut device);
    assert_eq!(device.engine.snapshot_request().expect("reads"), None);
    let vandal = Connection::open(device.path()).expect("opens");
    vandal.execute_batch("DELETE FROM action_records").expect("sync tables are not guarded");
    device.engine.fetch_request().expect_err("the undo belongs to nothing");
    let request = device.engine.snapshot_request().expect("reads").expect("every audience waits for a snapshot");
    assert_eq!(request.audiences.len(), 3);
}

#[test]
fn u17_work_that_the_servers_schema_cannot_take_waits_and_holds_up_nothing_else() {
    let mut device = Device::new();
    let ahead = device.run(&[LIST]).expect("runs");
    let dependent = device.run(&[RENAME]).expect("runs");
    let other = device.run(&[NOTE]).expect("runs");
    let sent = device.batch().expect("all three");
    let unknown = Outcome::Rejected { action: ahead, kind: RejectionKind::UnknownTable, reason: "lists".to_owned() };
    device.engine.conclude(&sent, &unknown, NOW).expect("concludes");
    let batch = device.engine.next_batch(sent.batch.batch_id).expect("reads").expect("the note goes");
    assert_eq!(batch.batch.records.iter().map(|record| record.id).collect::<Vec<_>>(), [other]);
    let held = Held { kind: RejectionKind::UnknownTable, reason: "lists".to_owned(), actions: 1 };
    assert_eq!(
        (device.engine.counts().expect("reads").held, device.engine.quarantined().expect("reads")),
        (vec![held], vec![])
    );
    let ids = BTreeMap::from([(other, ServerIngestId::new(1))]);
    device.engine.conclude(&batch, &Outcome::Accepted { ids }, NOW).expect("concludes");
    assert_eq!(device.engine.next_batch(sent.batch.batch_id).expect("reads"), None);
    // The server has migrated by the next session.
    let ids: Vec<_> = device.pending().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [ahead, dependent]);
}

#[test]
fn u17_one_of_those_that_wait_for_the_same_is_tried_for_all_of_them() {
    let mut device = Device::new();
    device.begin_session();
    let another = NOTE.replace("'n'", "'m'");
    let ids = [LIST, NOTE, &another].map(|sql| device.run(&[sql]).expect("runs"));
    let batch = |device: &mut Device| device.engine.next_batch(BatchId::from_uuid(Uuid::from_u128(1))).expect("reads");
    let reject = |device: &mut Device, reasons: [&str; 3]| {
        while let Some(sent) = batch(device) {
            let action = sent.batch.records[0].id;
            let place = ids.iter().position(|id| *id == action).expect("one of ours");
            let reason = reasons[place].to_owned();
            let unknown = Outcome::Rejected { action, kind: RejectionKind::UnknownColumn, reason };
            device.engine.conclude(&sent, &unknown, NOW).expect("concludes");
        }
    };
    reject(&mut device, ["one", "other", "other"]);
    let actions = |device: &mut Device| -> Vec<u64> {
        device.engine.counts().expect("reads").held.into_iter().map(|held| held.actions).collect()
    };
    assert_eq!(actions(&mut device), [1, 2]);
    device.engine.retry_held();
    let tried = batch(&mut device).expect("one of each");
    assert_eq!(tried.batch.records.iter().map(|record| record.id).collect::<Vec<_>>(), ids[..2]);
    assert_eq!(actions(&mut device), [1, 2], "what is tried waits still");
    reject(&mut device, ["one", "other", "other"]);
    assert_eq!((actions(&mut device), batch(&mut device)), (vec![1, 2], None));

    device.engine.retry_held();
    let tried = batch(&mut device).expect("one of each");
    let accepted = BTreeMap::from([(ids[1], ServerIngestId::new(1))]);
    device.engine.conclude(&tried, &Outcome::Accepted { ids: accepted }, NOW).expect("concludes");
    let rest = batch(&mut device).expect("the last goes with it");
    assert!(rest.batch.records.iter().any(|record| record.id == ids[2]), "{rest:?}");
}

#[test]
fn u27_a_copy_takes_a_new_id_and_keeps_its_work() {
    let mut device = Device::new();
    device.begin_session();
    let first = device.run(&[LIST]).expect("runs");
    let second = device.run(&[RENAME]).expect("runs");
    let copy = ClientId::from_uuid(Uuid::from_u128(0xc0));
    device.engine.become_device(copy).expect("becomes another");
    assert_eq!(device.engine.client_id().expect("reads"), copy);
    assert_eq!(device.rows("SELECT name FROM lists")[0]["name"], "two".into(), "everything is as it was");
    let request = device.engine.snapshot_request().expect("reads").expect("its cursors cannot be trusted");
    assert_eq!((request.client_id, request.ids), (copy, vec![first, second]), "the server is asked which it has");
}

#[test]
fn hr_a_hard_resync_takes_pending_work_out_but_keeps_it() {
    let mut device = Device::new();
    device.begin_session();
    let pending = device.run(&[LIST]).expect("runs");
    let committed = device.engine.hard_resync().expect("drops");
    assert!(matches!(committed.fates[&pending], Fate::Rejected { .. }));
    assert_eq!(device.count("lists"), 0);
    let kept = device.engine.inspect(pending).expect("reads").expect("kept");
    assert_eq!((kept.quarantined.kind, kept.patches.len()), (QuarantineKind::Dropped, 1));
}

#[test]
fn qua_a_quarantined_action_can_be_retried_discarded_and_exported() {
    let mut device = Device::new();
    device.begin_session();
    let (first, second) = (device.run(&[LIST]).expect("runs"), device.run(&[NOTE]).expect("runs"));
    device.engine.hard_resync().expect("drops");
    let exported: Vec<_> =
        device.engine.export_quarantine().expect("reads").into_iter().map(|action| action.quarantined.id).collect();
    assert_eq!(exported, [first, second]);
    let input = synchrotron_core::engine::ExecuteInput::new(device.next_action_id(), NOW);
    device.engine.retry(first, input).expect("runs as a new action");
    assert_eq!(device.count("lists"), 1);
    assert!(device.engine.discard(second).expect("forgets"));
    assert!(!device.engine.discard(second).expect("forgets"), "it is gone");
    assert_eq!(device.engine.counts().expect("reads").quarantined, 0);
    device.engine.retry(second, input).expect_err("it is gone");
}

#[test]
fn u13_after_a_sign_out_nothing_of_the_first_user_is_the_seconds() {
    let mut device = Device::new();
    device.begin_session();
    device.run(&[LIST, NOTE]).expect("runs");
    let new_id = ClientId::from_uuid(Uuid::from_u128(0xb0b));
    let refused = device.engine.sign_out(new_id, Unsent::Keep).expect_err("work would be lost");
    assert_eq!(refused, SignOutError::Unsent { pending: 1, quarantined: 0 });
    device.engine.sign_out(new_id, Unsent::Discard).expect("signs out");
    assert_eq!(device.run(&[LIST]).expect_err("nobody is signed in"), ExecuteError::SignedOut);
    let path = device.path();
    let bob = UserId::new("bob").expect("ok");
    let store =
        SqliteStore::open(&SqliteSettings { user_id: bob, ..settings(&path, SCHEMA, tables()) }).expect("opens");
    let mut engine = Engine::new(store, synchrotron_core::action::Registry::default(), &tables(), Limits::default());
    assert_eq!((device.count("lists"), device.count("notes")), (0, 0));
    assert_eq!(engine.client_id().expect("reads"), new_id);
    assert_eq!((engine.pending_count().expect("reads"), engine.cursors().expect("reads").len()), (0, 0));
}

#[test]
fn u04_a_dropped_action_that_the_server_has_after_all_is_confirmed_by_the_snapshot() {
    let mut device = Device::new();
    device.begin_session();
    let sent = device.run(&[LIST]).expect("runs");
    device.engine.hard_resync().expect("drops");
    let request = device.engine.snapshot_request().expect("reads").expect("every audience is stale");
    assert_eq!(request.ids, [sent], "its answer may have been lost");
    let header = SnapshotHeader { audiences: Vec::new(), known: BTreeMap::from([(sent, ServerIngestId::new(1))]) };
    let position = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(Uuid::from_u128(1)), chunk: 0 };
    let chunk = SnapshotChunk { position, header: Some(header), rows: Vec::new(), last: true };
    device.engine.take_chunk(&chunk).expect("takes it");
    assert_eq!(device.engine.fate(sent).expect("reads"), Some(Fate::Confirmed));
    assert_eq!(device.engine.counts().expect("reads").quarantined, 0, "a retry would do it twice");
}

#[test]
fn u04_a_dropped_action_that_the_server_takes_after_the_snapshot_leaves_the_quarantine() {
    let mut device = Device::new();
    let id = device.run(&[NOTE]).expect("runs");
    let sent = device.batch().expect("it is on its way");
    device.engine.hard_resync().expect("drops");
    let request = device.engine.snapshot_request().expect("reads").expect("every audience is stale");
    let at_start = |audience_key| SnapshotAudience { audience_key, cursor: Cursor::START, floor: None, rows: 0 };
    let audiences = request.audiences.into_iter().map(at_start).collect();
    let header = SnapshotHeader { audiences, known: BTreeMap::new() };
    let position = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(Uuid::from_u128(1)), chunk: 0 };
    let chunk = SnapshotChunk { position, header: Some(header), rows: Vec::new(), last: true };
    device.engine.take_chunk(&chunk).expect("takes it");
    let UploadRecord { id: sent_id, clock, body, rows, trace_parent: _ } =
        sent.batch.records.into_iter().next().expect("one");
    assert_eq!(sent_id, id);
    let record = ActionRecord {
        id,
        clock,
        client_id: sent.batch.client_id,
        user_id: UserId::new("alice").expect("ok"),
        server_ingest_id: Some(ServerIngestId::new(1)),
        trace_parent: None,
        body,
    };
    let row_count = u32::try_from(rows.len()).expect("few");
    let page = FetchPage {
        epoch: sent.batch.epoch,
        records: vec![LogRecord { record, row_count, slices: Vec::new(), rows }],
        cursors: Cursors::new(),
        more: false,
    };
    device.engine.integrate_page(page).expect("integrates");
    assert_eq!((device.count("notes"), device.engine.fate(id).expect("reads")), (1, Some(Fate::Confirmed)));
    assert_eq!(device.engine.counts().expect("reads").quarantined, 0, "a retry would do it twice");
}

#[test]
fn rb_nothing_is_uploaded_while_rows_wait_for_a_snapshot() {
    let mut device = Device::new();
    device.begin_session();
    device.run(&[LIST]).expect("runs");
    assert!(device.batch().is_some());
    device.engine.rebase().expect("marks");
    assert_eq!(device.batch(), None, "it has to run on the server's rows first");
}

#[test]
fn fates_are_listed_and_forgotten_by_age() {
    let mut device = Device::new();
    device.begin_session();
    let dropped = device.run(&[LIST]).expect("runs");
    device.engine.hard_resync().expect("drops");
    let listed = device.engine.fates(None, 10).expect("reads");
    assert_eq!(listed.iter().map(|fated| fated.action_id).collect::<Vec<_>>(), [dropped]);
    let session = |days: i64| Session {
        user_id: UserId::new("alice").expect("ok"),
        epoch: Epoch::from_uuid(Uuid::from_u128(0xe)),
        server_time_ms: NOW + days * 24 * 60 * 60 * 1_000,
        audiences: Vec::new(),
    };
    device.engine.begin_session(&session(29), NOW).expect("begins");
    assert_eq!(device.engine.fates(None, 10).expect("reads").len(), 1);
    device.engine.begin_session(&session(31), NOW).expect("begins");
    assert_eq!(device.engine.fates(None, 10).expect("reads"), []);
}
