//! Rows that move between audiences: deleted in one and inserted in the other, with the same id. The two logs come apart,
//! and so do snapshots; whatever comes first, sync goes on, and ends as the server has it.

use synchrotron_core::action::{Action, Registry, Table};
use synchrotron_core::model::{Columns, Effect, Patch, RowId, TableName, Value};
use synchrotron_core::store::QuarantineKind;
use synchrotron_core::wire::{LogRecord, SnapshotRow};

use crate::support::{NOW, RunSql, sql};
use crate::versions::{Phone, Version, audience, columns, effect, remote};

const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, name TEXT UNIQUE, audience_key TEXT NOT NULL)";

fn version() -> Version {
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new");
    Version { schema: SCHEMA.to_owned(), tables: vec![Table::new("tasks").given_ids()], registry }
}

fn phone_in(audiences: &[(&str, i64)]) -> Phone {
    let mut phone = Phone::new(&version());
    phone.begin_session_in(audiences);
    phone
}

fn named(name: &str) -> Columns {
    columns([("name", name.into())])
}

fn of(key: &str, row: &str, effect_on_it: Effect) -> Patch {
    Patch { audience_key: audience(key), ..effect("tasks", row, effect_on_it) }
}

/// A record of an app's version that this one does not know.
fn unknown(number: i64, at_ms: i64, rows: Vec<Patch>) -> LogRecord {
    remote(number, at_ms, "of_a_newer_app_v1", &sql(&[]), rows)
}

fn insert(number: i64, at_ms: i64, key: &str, row: &str, name: &str) -> LogRecord {
    unknown(number, at_ms, vec![of(key, row, Effect::Insert(named(name)))])
}

/// The move of `x` from `q` to `p`, as far as it is visible to who is in these audiences.
fn move_of_x(number: i64, at_ms: i64, visible: &[&str]) -> LogRecord {
    let both = vec![of("q", "x", Effect::Delete), of("p", "x", Effect::Insert(named("moved")))];
    let mut record = unknown(number, at_ms, both);
    record.rows.retain(|row| visible.contains(&row.audience_key.as_str()));
    record
}

fn in_snapshot(key: &str, row: &str, name: &str) -> SnapshotRow {
    SnapshotRow {
        table: TableName::new("tasks").expect("ok"),
        row_id: RowId::new(row).expect("ok"),
        audience_key: audience(key),
        columns: named(name),
    }
}

fn tasks(phone: &Phone) -> Vec<Value> {
    phone.column("SELECT id || '=' || name || '@' || audience_key AS c FROM tasks ORDER BY id")
}

/// Nothing is aside, nothing to send, and history says the same as the rows.
fn assert_settled(phone: &mut Phone) {
    assert_eq!(phone.rows("SELECT * FROM local_displaced_rows"), []);
    assert_eq!(phone.unsent(), []);
    let report = phone.engine.check().expect("checks");
    assert!(report.is_sound(), "{report:?}");
}

#[test]
fn a_snapshot_of_where_a_row_moved_to_comes_before_the_log_of_where_it_was() {
    let mut phone = phone_in(&[("q", 0)]);
    phone.take_of("q", vec![insert(1, NOW, "q", "x", "old")]).expect("integrates");
    phone.begin_session_in(&[("q", 2), ("p", 2)]);
    phone.take_snapshot("p", 2, vec![in_snapshot("p", "x", "moved"), in_snapshot("p", "y", "other")]);
    assert_eq!(tasks(&phone), ["x=old@q".into(), "y=other@p".into()], "it waits for its id");
    phone.take_of("q", vec![move_of_x(2, NOW + 2, &["q"])]).expect("integrates");
    assert_eq!(tasks(&phone), ["x=moved@p".into(), "y=other@p".into()]);
    assert_settled(&mut phone);
    phone.take_of("q", vec![insert(3, NOW + 1, "q", "z", "late")]).expect("rewinds the move, and replays it");
    assert_eq!(tasks(&phone), ["x=moved@p".into(), "y=other@p".into(), "z=late@q".into()]);
    assert_settled(&mut phone);
}

#[test]
fn a_row_that_waits_for_its_id_takes_effects_and_comes_when_the_other_audience_is_left() {
    let mut phone = phone_in(&[("q", 0)]);
    phone.take_of("q", vec![insert(1, NOW, "q", "x", "old")]).expect("integrates");
    phone.begin_session_in(&[("q", 2), ("p", 2)]);
    phone.take_snapshot("p", 2, vec![in_snapshot("p", "x", "moved")]);
    let rename = unknown(3, NOW + 3, vec![of("p", "x", Effect::Update(named("renamed")))]);
    phone.take_of("p", vec![rename]).expect("integrates");
    assert_eq!(tasks(&phone), ["x=old@q".into()]);
    phone.begin_session_in(&[("p", 3)]);
    assert_eq!(tasks(&phone), ["x=renamed@p".into()]);
}

#[test]
fn a_move_is_rewound_over_a_newer_snapshot_of_where_the_row_is() {
    let mut phone = phone_in(&[("q", 0), ("p", 0)]);
    phone.take_of("q", vec![insert(1, NOW, "q", "x", "old")]).expect("integrates");
    phone.take_of("q", vec![move_of_x(2, NOW + 5, &["q", "p"])]).expect("integrates");
    assert_eq!(tasks(&phone), ["x=moved@p".into()]);
    // The user leaves `p` and comes back: its undo goes, that of `q` stays.
    phone.begin_session_in(&[("q", 2)]);
    phone.begin_session_in(&[("q", 2), ("p", 2)]);
    phone.take_snapshot("p", 2, vec![in_snapshot("p", "x", "moved")]);
    for (number, row) in [(3, "late"), (4, "later")] {
        phone.take_of("q", vec![insert(number, NOW + number, "q", row, row)]).expect("rewinds the move");
    }
    assert_eq!(tasks(&phone), ["late=late@q".into(), "later=later@q".into(), "x=moved@p".into()]);
    assert_settled(&mut phone);
}

#[test]
fn what_is_undone_displaces_a_snapshots_row_that_has_its_unique_value() {
    let mut phone = phone_in(&[("q", 0)]);
    phone.take_of("q", vec![insert(1, NOW, "q", "a", "free")]).expect("integrates");
    let gives_it_up = unknown(2, NOW + 5, vec![of("q", "a", Effect::Update(named("given up")))]);
    phone.take_of("q", vec![gives_it_up]).expect("integrates");
    phone.begin_session_in(&[("q", 2), ("p", 9)]);
    phone.take_snapshot("p", 9, vec![in_snapshot("p", "b", "free")]);
    assert_eq!(tasks(&phone), ["a=given up@q".into(), "b=free@p".into()]);
    phone.take_of("q", vec![insert(3, NOW + 3, "q", "c", "late")]).expect("`a` has its name back for a while");
    assert_eq!(tasks(&phone), ["a=given up@q".into(), "b=free@p".into(), "c=late@q".into()]);
    assert_settled(&mut phone);
}

/// To judge an action that counts rows, history without what came later is put under it. There, a snapshot's row has no
/// place, so the count would be of other rows than anybody had.
#[test]
fn an_action_is_not_judged_where_a_row_is_displaced() {
    let mut phone = phone_in(&[("q", 0), ("user:alice", 0)]);
    phone.take_of("q", vec![insert(1, NOW - 5, "q", "a", "free")]).expect("integrates");
    let mine = sql(&["INSERT INTO tasks (id, name, audience_key) VALUES ('mine', 'mine', 'user:alice')"]);
    let mine = phone.execute(&mine).expect("runs");
    let count = "INSERT INTO tasks (id, name, audience_key) \
                 SELECT 'n', 'count ' || count(*), 'q' FROM tasks WHERE audience_key = 'q'";
    let counted = vec![of("q", "n", Effect::Insert(named("count 1")))];
    phone.take_of("q", vec![remote(3, NOW + 10, RunSql::TAG, &sql(&[count]), counted)]).expect("integrates");
    let gives_it_up = unknown(5, NOW + 5, vec![of("q", "a", Effect::Update(named("given up")))]);
    phone.take_of("q", vec![gives_it_up]).expect("integrates");
    phone.begin_session_in(&[("q", 5), ("user:alice", 0), ("p", 9)]);
    phone.take_snapshot("p", 9, vec![in_snapshot("p", "b", "free")]);
    phone.take_of("q", vec![insert(6, NOW + 2, "q", "c", "late")]).expect("integrates");
    let sent: Vec<_> = phone.unsent().into_iter().map(|record| record.id).collect();
    assert_eq!(sent, [mine], "no correction");
    let expected = ["a=given up@q", "b=free@p", "c=late@q", "mine=mine@user:alice", "n=count 1@q"];
    assert_eq!(tasks(&phone), expected.map(Value::from));
}

#[test]
fn a_pending_row_whose_id_was_taken_in_another_audience_gives_way() {
    let mut phone = phone_in(&[("q", 0), ("p", 0)]);
    let mine = sql(&["INSERT INTO tasks (id, name, audience_key) VALUES ('x', 'mine', 'q')"]);
    let mine = phone.execute(&mine).expect("runs");
    phone.take_of("p", vec![insert(1, NOW + 5, "p", "x", "theirs")]).expect("integrates");
    assert_eq!(tasks(&phone), ["x=theirs@p".into()]);
    let quarantined = phone.engine.quarantined().expect("reads");
    assert_eq!((quarantined[0].id, quarantined[0].kind), (mine, QuarantineKind::RejectedOnReplay));
    assert!(quarantined[0].reason.contains("tasks.id"), "{}", quarantined[0].reason);
    assert_settled(&mut phone);
}

/// A file that the version before left behind: its displaced rows have ids that do not name their audience.
#[test]
fn rows_that_an_older_version_displaced_come_back() {
    let mut phone = phone_in(&[("p", 0)]);
    phone.take(vec![insert(1, NOW, "p", "a", "x"), insert(2, NOW + 1, "p", "b", "x")]).expect("integrates");
    assert_eq!(tasks(&phone), ["b=x@p".into()]);
    let file = rusqlite::Connection::open(phone.path()).expect("opens");
    file.execute_batch(
        "DROP TRIGGER synchrotron_move_local_displaced_rows; DROP TRIGGER synchrotron_update_local_displaced_rows;
         UPDATE local_displaced_rows SET id = 'as it was';
         UPDATE local_undo SET row_id = 'as it was' WHERE table_name = 'local_displaced_rows'",
    )
    .expect("writes");
    let aside = unknown(3, NOW + 2, vec![of("p", "a", Effect::Update(named("y")))]);
    phone.take(vec![aside]).expect("integrates");
    assert_eq!(tasks(&phone), ["a=y@p".into(), "b=x@p".into()]);
    phone.take(vec![insert(4, NOW - 1, "p", "c", "z")]).expect("rewinds it all");
    assert_eq!(tasks(&phone), ["a=y@p".into(), "b=x@p".into(), "c=z@p".into()]);
    assert_settled(&mut phone);
}
