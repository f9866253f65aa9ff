//! The rules of integrating one by one, each with the smallest history in which breaking it shows.

use std::collections::BTreeMap;

use synchrotron_core::model::{
    ActionId, ClientId, Columns, Cursor, Effect, Hlc, Patch, RecordBody, ReplayKey, RowId, ServerIngestId, SliceTag,
    SnapshotId, TableName,
};
use synchrotron_core::wire::{
    LogRecord, Outcome, RejectionKind, SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRow,
};
use uuid::Uuid;

use crate::integrate::{audience, device, insert, name_of, page, remote, set_name, update};
use crate::support::{Device, NOW, ODD_AUDIENCE, sql};

/// An action after all others that names the list `l` by how many lists there are; `found` many where it was executed.
fn counting(number: i64, found: &str) -> LogRecord {
    let counts = sql(&["UPDATE lists SET name = (SELECT count(*) FROM lists) WHERE id = 'l'"]);
    remote(number, NOW + 5, &counts, vec![set_name(0, "l", found, false)])
}

/// An action that inserted `l` where it was executed, and inserts `extra`, in this audience, too where it runs here.
fn insert_with_extra(number: i64, at_ms: i64, audience: &str) -> LogRecord {
    let extra = format!("INSERT INTO lists (id, name, audience_key) VALUES ('extra', 'two', '{audience}')");
    let both = ["INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')", extra.as_str()];
    remote(number, at_ms, &sql(&both), vec![set_name(0, "l", "one", true)])
}

/// A correction that gives the list `l` another name than the action `amended` does.
fn rename_in(amended: &LogRecord, number: i64, name: &str) -> LogRecord {
    let mut correction = insert(number, NOW + number, "l", name);
    correction.record.body = RecordBody::Correction { amends: amended.record.position(), reason: None };
    correction
}

fn rows_to_send(device: &mut Device) -> Vec<Patch> {
    device.pending().into_iter().flat_map(|(_, rows)| rows).collect()
}

/// Swaps in a snapshot of the audience `p` with this floor: one list, named as later actions left it. No other audience
/// has anything.
fn take_snapshot(device: &mut Device, floor: ReplayKey) {
    device.engine.rebase().expect("marks");
    let at = |key: &str| {
        let (cursor, floor, rows) =
            if key == "p" { (Cursor::new(5), Some(floor), 1) } else { (Cursor::START, None, 0) };
        SnapshotAudience { audience_key: audience(key), cursor, floor, rows }
    };
    let header = SnapshotHeader { audiences: ["p", "user:alice", ODD_AUDIENCE].map(at).into(), known: BTreeMap::new() };
    let list = SnapshotRow {
        table: TableName::new("lists").expect("ok"),
        row_id: RowId::new("l").expect("ok"),
        audience_key: audience("p"),
        columns: Columns::from([("name".to_owned(), "later".into())]),
    };
    let position = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(Uuid::from_u128(1)), chunk: 0 };
    let chunk = SnapshotChunk { position, header: Some(header), rows: vec![list], last: true };
    device.engine.take_chunk(&chunk).expect("takes it");
}

/// What this device is about to send is late beneath everything after it: an action that counts rows, judged on the rows as
/// its author had them, counts the added one too.
#[test]
fn cor_an_own_correction_is_late_beneath_what_comes_after_it() {
    let mut device = device();
    let records = vec![insert_with_extra(1, NOW, "p"), counting(2, "1")];
    device.engine.integrate_page(page(2, records)).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("2".into()), "the rows are the fold of what will be on the server");
    assert_eq!(rows_to_send(&mut device), [set_name(0, "extra", "two", true), set_name(0, "l", "2", false)]);
}

/// What an action does here to an audience that the user is not in is undone on the spot, and nothing is said about it.
#[test]
fn cor_an_effect_on_a_foreign_audience_is_neither_kept_nor_sent() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert_with_extra(1, NOW, "elsewhere")])).expect("integrates");
    assert_eq!((name_of(&device, "l"), name_of(&device, "extra")), (Some("one".into()), None));
    assert_eq!(rows_to_send(&mut device), []);
}

/// Of two corrections of one row, the one that the server accepted last has the say, whichever comes here first.
#[test]
fn cor_the_newest_correction_of_a_row_has_the_say_in_every_order_of_arrival() {
    let action = insert(1, NOW, "l", "one");
    let (older, newer) = (rename_in(&action, 2, "older"), rename_in(&action, 3, "newer"));
    for corrections in [[older.clone(), newer.clone()], [newer, older]] {
        let mut device = device();
        device.engine.integrate_page(page(1, vec![action.clone()])).expect("integrates");
        for (through, correction) in (2..).zip(corrections) {
            device.engine.integrate_page(page(through, vec![correction])).expect("integrates");
        }
        assert_eq!(name_of(&device, "l"), Some("newer".into()));
        assert_eq!(rows_to_send(&mut device), []);
    }
}

/// Beneath the floor of one audience, the rows of that audience are not as they were: an action of another audience that
/// reads them is not run there. Its patch applies, and nothing is added to it.
#[test]
fn boot_nothing_is_run_on_rows_of_a_later_time() {
    let mut device = device();
    let last_in_p = ReplayKey {
        clock: Hlc::at_millis(NOW + 10),
        client_id: ClientId::from_uuid(Uuid::from_u128(0xc2)),
        action_id: ActionId::from_uuid(Uuid::from_u128(0xf)),
    };
    take_snapshot(&mut device, last_in_p);
    let note_later_names = [
        "INSERT INTO notes (id, owner, title) VALUES ('n', 'alice', 'T')",
        "INSERT INTO notes (id, owner, title) SELECT 'spurious', 'alice', name FROM lists WHERE name = 'later'",
    ];
    let note = Patch {
        table: TableName::new("notes").expect("ok"),
        row_id: RowId::new("n").expect("ok"),
        audience_key: audience("user:alice"),
        effect: Effect::Insert(Columns::from([("owner".into(), "alice".into()), ("title".into(), "T".into())])),
        ..set_name(0, "l", "", true)
    };
    let mut action = remote(6, NOW + 5, &sql(&note_later_names), vec![note]);
    action.slices = vec![SliceTag::of(action.record.id, &audience("user:alice"))];
    device.engine.integrate_page(page(6, vec![action])).expect("integrates");
    assert_eq!(device.rows("SELECT id FROM notes"), [Columns::from([("id".to_owned(), "n".into())])]);
    assert_eq!(rows_to_send(&mut device), []);
}

/// A correction that the server refused is not made again, however often history is gone through.
#[test]
fn cor_a_refused_correction_is_not_made_again() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert_with_extra(1, NOW, "p")])).expect("integrates");
    let sent = device.batch().expect("a correction");
    let correction = sent.batch.records[0].id;
    let refusal = Outcome::Rejected { action: correction, kind: RejectionKind::Denied, reason: "no".to_owned() };
    device.engine.conclude(&sent, &refusal, NOW).expect("concludes");
    assert_eq!((name_of(&device, "extra"), device.pending()), (None, vec![]), "its effect goes with it");
    device.engine.integrate_page(page(2, vec![update(2, NOW - 5, "l", "beneath")])).expect("integrates");
    assert_eq!((name_of(&device, "extra"), device.pending()), (None, vec![]), "nor later");
}

/// An unsent correction is taken back and worked out again when something comes beneath it: there is one, of the last word.
#[test]
fn cor_an_unsent_correction_is_worked_out_again_never_doubled() {
    let mut device = device();
    device.engine.integrate_page(page(2, vec![insert(1, NOW, "l", "one"), counting(2, "1")])).expect("integrates");
    device.engine.integrate_page(page(3, vec![insert(3, NOW + 1, "m", "late")])).expect("integrates");
    assert_eq!(rows_to_send(&mut device), [set_name(0, "l", "2", false)]);
    device.engine.integrate_page(page(4, vec![insert(4, NOW + 2, "n", "late, too")])).expect("integrates");
    assert_eq!(rows_to_send(&mut device), [set_name(0, "l", "3", false)]);
}

/// A correction that brings an earlier effect back is another record than the one that had it first: the server has that one
/// already, and an answer from what it has would change nothing.
#[test]
fn cor_a_correction_that_brings_an_effect_back_is_another_record() {
    let mut device = device();
    let counts = counting(2, "1");
    device.engine.integrate_page(page(2, vec![insert(1, NOW, "l", "one"), counts.clone()])).expect("integrates");
    device.engine.integrate_page(page(3, vec![insert(3, NOW + 1, "m", "late")])).expect("integrates");
    let sent = device.batch().expect("a correction");
    let first = sent.batch.records[0].id;
    let accepted = Outcome::Accepted { ids: BTreeMap::from([(first, ServerIngestId::new(4))]) };
    device.engine.conclude(&sent, &accepted, NOW).expect("concludes");
    device.engine.integrate_page(page(5, vec![rename_in(&counts, 5, "of another")])).expect("integrates");
    assert_eq!((name_of(&device, "l"), device.pending()), (Some("of another".into()), vec![]));
    device.engine.integrate_page(page(6, vec![update(6, NOW + 2, "m", "late, too")])).expect("integrates");
    let pending = device.pending();
    assert_eq!(rows_to_send(&mut device), [set_name(0, "l", "2", false)]);
    assert_ne!(pending[0].0, first);
}

/// Whoever agrees with an author only because something came late beneath may not judge: on the rows of its time, the code
/// here does something else.
#[test]
fn sfo_a_replica_that_agrees_by_chance_never_overrules_the_author() {
    let mut device = device();
    let seen_more = counting(2, "2");
    let late = insert(3, NOW + 1, "m", "late");
    device.engine.integrate_page(page(3, vec![insert(1, NOW, "l", "one"), seen_more, late])).expect("integrates");
    device.engine.integrate_page(page(4, vec![insert(4, NOW + 2, "n", "late, too")])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("2".into()));
    assert_eq!(rows_to_send(&mut device), []);
}

/// What is pending here is late beneath every accepted action after it, whether it stays in its place or runs again.
#[test]
fn cor_an_own_pending_action_is_late_beneath_what_comes_after_it() {
    for runs_again in [false, true] {
        let mut device = device();
        let (list, counts) = (insert(1, NOW - 5, "l", "one"), counting(2, "1"));
        let (before, after) = if runs_again { (vec![], vec![list, counts]) } else { (vec![list], vec![counts]) };
        device.engine.integrate_page(page(1, before)).expect("integrates");
        device.run(&["INSERT INTO lists (id, name, audience_key) VALUES ('m', 'mine', 'p')"]).expect("runs");
        device.engine.integrate_page(page(2, after)).expect("integrates");
        assert_eq!(name_of(&device, "l"), Some("2".into()));
        assert_eq!(rows_to_send(&mut device), [set_name(0, "m", "mine", true), set_name(0, "l", "2", false)]);
    }
}

/// An action's author may judge it whatever its code does now: here it counts otherwise than when it was executed.
#[test]
fn sfo_an_author_may_always_judge() {
    let mut device = device();
    let mut own = counting(2, "7");
    own.record.client_id = device.engine.client_id().expect("reads");
    device.engine.integrate_page(page(2, vec![insert(1, NOW, "l", "one"), own])).expect("integrates");
    assert_eq!((name_of(&device, "l"), device.pending()), (Some("7".into()), vec![]), "nothing came late beneath");
    device.engine.integrate_page(page(3, vec![insert(3, NOW + 1, "m", "late")])).expect("integrates");
    assert_eq!(rows_to_send(&mut device), [set_name(0, "l", "2", false)]);
}

/// The rows of an action that come later, when its other audience is fetched, join those that are here.
#[test]
fn ing_rows_that_come_later_join_those_of_the_same_action() {
    let mut device = device();
    let both = [
        "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')",
        "INSERT INTO lists (id, name, audience_key) VALUES ('m', 'two', 'p')",
    ];
    let whole = remote(1, NOW, &sql(&both), vec![set_name(0, "l", "one", true), set_name(1, "m", "two", true)]);
    for part in whole.rows.clone() {
        let record = LogRecord { rows: vec![part], ..whole.clone() };
        device.engine.integrate_page(page(1, vec![record])).expect("integrates");
    }
    assert_eq!((name_of(&device, "l"), name_of(&device, "m")), (Some("one".into()), Some("two".into())));
    assert_eq!(rows_to_send(&mut device), []);
}

/// An own action that the server has stays visible while its audience waits for a snapshot.
#[test]
fn boot_what_ran_here_stays_visible_until_a_snapshot_replaces_it() {
    let mut device = device();
    let id = device.run(&["INSERT INTO lists (id, name, audience_key) VALUES ('l', 'mine', 'p')"]).expect("runs");
    let sent = device.batch().expect("pending").batch.records.remove(0);
    let mut own = insert(1, NOW, "l", "mine");
    own.record.id = id;
    own.record.clock = sent.clock;
    own.record.client_id = device.engine.client_id().expect("reads");
    own.record.body = sent.body;
    device.engine.rebase().expect("marks");
    device.engine.integrate_page(page(1, vec![own])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("mine".into()));
    assert_eq!(device.engine.pending_count().expect("reads"), 0, "it is accepted");
}
