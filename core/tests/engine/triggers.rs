//! The app's own triggers. What they write to tracked tables is an action's effect, captured in the order in which it
//! happens, and fires at no other time; what keeps local tables up to date follows every change of a row.

use rusqlite::Connection;
use synchrotron_core::action::{Registry, Table};
use synchrotron_core::model::{Columns, Effect, Patch, RowId, TableName, Value};
use synchrotron_core::store::StoreError;
use synchrotron_core::wire::{LogRecord, SnapshotRow};

use crate::support::{NOW, RunSql, open_with, sql, story};
use crate::versions::{Phone, Version, audience, columns, effect, remote};

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS lists (id TEXT PRIMARY KEY, n INTEGER, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS tasks (id TEXT PRIMARY KEY, list TEXT, slug TEXT, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS local_words (task TEXT PRIMARY KEY, words TEXT);
    CREATE TABLE IF NOT EXISTS local_steps (step TEXT);";

/// Counts tasks, names them, and keeps one for ever.
const TRIGGERS: &str = "
    CREATE TRIGGER IF NOT EXISTS one_more AFTER INSERT ON Tasks WHEN NEW.list <> 'none' OR NEW.list IS NULL BEGIN
        UPDATE lists SET n = n + 1 WHERE id = NEW.list; END;
    CREATE TRIGGER IF NOT EXISTS one_less AFTER DELETE ON tasks /* BEGIN */ BEGIN
        UPDATE lists SET n = n - 1 WHERE id = OLD.list; END;
    CREATE TRIGGER IF NOT EXISTS \"names' it\" AFTER INSERT ON tasks BEGIN
        UPDATE tasks SET slug = 'task-' || NEW.id WHERE id = NEW.id; END;
    CREATE TRIGGER IF NOT EXISTS kept BEFORE DELETE ON tasks WHEN OLD.id = 'kept' -- for ever
    BEGIN SELECT RAISE(ABORT, 'this one stays'); END;
    CREATE TRIGGER IF NOT EXISTS indexes AFTER INSERT ON tasks BEGIN
        INSERT INTO local_words VALUES (NEW.id, NEW.list); END;
    CREATE TRIGGER IF NOT EXISTS forgets AFTER DELETE ON tasks BEGIN
        DELETE FROM local_words WHERE task = OLD.id; END;";

fn version(triggers: &str) -> Version {
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new");
    let tables = vec![Table::new("lists").given_ids(), Table::new("tasks").given_ids()];
    Version { schema: format!("{TABLES}{triggers}"), tables, registry }
}

fn phone() -> Phone {
    let mut phone = Phone::new(&version(TRIGGERS));
    phone.take(vec![list_of(1, NOW - 9, "l", 0)]).expect("integrates");
    phone
}

fn list_of(number: i64, at_ms: i64, row: &str, n: i64) -> LogRecord {
    let insert = effect("lists", row, Effect::Insert(columns([("n", n.into())])));
    remote(number, at_ms, "of_a_newer_app_v1", &sql(&[]), vec![insert])
}

fn task_columns(id: &str) -> Columns {
    columns([("list", "l".into()), ("slug", format!("task-{id}").into())])
}

/// A task of another device, with what the triggers did there.
fn task_of(number: i64, at_ms: i64, id: &str, n: i64) -> LogRecord {
    let rows = vec![
        effect("lists", "l", Effect::Update(columns([("n", n.into())]))),
        effect("tasks", id, Effect::Insert(task_columns(id))),
    ];
    remote(number, at_ms, "of_a_newer_app_v1", &sql(&[]), rows)
}

fn insert_task(id: &str) -> RunSql {
    sql(&[&format!("INSERT INTO tasks (id, list, audience_key) VALUES ('{id}', 'l', 'p')")])
}

fn count_of_l(phone: &Phone) -> Vec<Value> {
    phone.column("SELECT n AS c FROM lists WHERE id = 'l'")
}

fn patch_of(phone: &mut Phone) -> Vec<String> {
    let rows: Vec<Patch> = phone.unsent().into_iter().flat_map(|record| record.rows).collect();
    story(&rows)
}

#[test]
fn what_a_trigger_does_in_an_action_is_captured_after_what_set_it_off() {
    let mut phone = phone();
    phone.execute(&insert_task("t")).expect("runs");
    let patch = patch_of(&mut phone);
    assert_eq!(patch[0], "0 INSERT tasks.t {list='l', slug=null}", "{patch:?}");
    let mut effects = patch[1..].iter().map(|effect| &effect[2..]).collect::<Vec<_>>();
    effects.sort_unstable();
    assert_eq!(effects, ["UPDATE lists.l {n=1}", "UPDATE tasks.t {slug='task-t'}"]);
}

#[test]
fn triggers_do_not_fire_again_when_history_is_rewound() {
    let mut phone = phone();
    phone.execute(&insert_task("t")).expect("runs");
    let patch = patch_of(&mut phone);
    phone.take(vec![list_of(2, NOW - 5, "m", 7)]).expect("rewinds, and runs it again");
    assert_eq!((count_of_l(&phone), patch_of(&mut phone)), (vec![1.into()], patch));
}

#[test]
fn triggers_do_not_fire_for_what_others_did() {
    let mut phone = phone();
    phone.take(vec![task_of(2, NOW, "t", 1), task_of(3, NOW + 1, "u", 2)]).expect("integrates");
    assert_eq!(count_of_l(&phone), [2.into()]);
    phone.take(vec![task_of(4, NOW - 1, "s", 1)]).expect("rewinds, and integrates");
    assert_eq!(
        phone.column("SELECT slug AS c FROM tasks ORDER BY id"),
        ["task-s", "task-t", "task-u"].map(Value::from)
    );
    assert_eq!(count_of_l(&phone), [2.into()], "as the patches say");
    assert_eq!(phone.unsent(), []);
    assert!(phone.engine.check().expect("checks").is_sound());
}

#[test]
fn triggers_do_not_fire_for_a_snapshot() {
    let mut phone = phone();
    phone.engine.rebase().expect("marks");
    let row = |table: &str, id: &str, columns: Columns| SnapshotRow {
        table: TableName::new(table).expect("ok"),
        row_id: RowId::new(id).expect("ok"),
        audience_key: audience("p"),
        columns,
    };
    let rows = vec![row("lists", "l", columns([("n", 1.into())])), row("tasks", "t", task_columns("t"))];
    phone.take_snapshot("p", 2, rows);
    assert_eq!(count_of_l(&phone), [1.into()]);
}

#[test]
fn a_trigger_that_refuses_is_a_rule_for_actions_alone() {
    let mut phone = phone();
    phone.execute(&insert_task("kept")).expect("runs");
    let error = phone.execute(&sql(&["DELETE FROM tasks"])).expect_err("the app's rule");
    assert!(error.to_string().contains("this one stays"), "{error}");
    phone.take(vec![task_of(2, NOW - 5, "t", 1)]).expect("rewinds its insert");
    let gone = effect("tasks", "t", Effect::Delete);
    phone.take(vec![remote(3, NOW + 5, "of_a_newer_app_v1", &sql(&[]), vec![gone])]).expect("integrates");
    assert_eq!(phone.column("SELECT id AS c FROM tasks"), ["kept".into()]);
    phone.begin_session_in(&[("user:alice", 0)]);
    assert_eq!(phone.column("SELECT id AS c FROM tasks"), [], "it leaves with its audience");
}

#[test]
fn a_local_table_is_kept_up_to_date_through_all_of_it() {
    let words = |phone: &Phone| phone.column("SELECT task AS c FROM local_words ORDER BY task");
    let mut phone = phone();
    phone.execute(&insert_task("t")).expect("runs");
    phone.take(vec![task_of(2, NOW - 5, "s", 1)]).expect("rewinds, and integrates");
    assert_eq!(words(&phone), ["s".into(), "t".into()]);
    let gone = effect("tasks", "s", Effect::Delete);
    phone.take(vec![remote(3, NOW + 5, "of_a_newer_app_v1", &sql(&[]), vec![gone])]).expect("integrates");
    assert_eq!(words(&phone), ["t".into()]);
    phone.begin_session_in(&[("user:alice", 0)]);
    assert_eq!(words(&phone), []);
}

#[test]
fn triggers_that_an_older_version_did_not_know_are_taken_in_hand() {
    let mut phone = Phone::new(&version(""));
    phone.take(vec![list_of(1, NOW - 9, "l", 0)]).expect("integrates");
    let other = Connection::open(phone.path()).expect("opens");
    other.execute_batch(TRIGGERS).expect("a migration by another connection");
    phone.execute(&insert_task("t")).expect("runs");
    assert_eq!(patch_of(&mut phone)[0], "0 INSERT tasks.t {list='l', slug=null}");
    phone.take(vec![list_of(2, NOW - 5, "m", 7)]).expect("rewinds, and runs it again");
    assert_eq!(count_of_l(&phone), [1.into()]);
    let mut phone =
        phone.upgrade(&version("DROP TRIGGER one_more; DROP TRIGGER one_less; DROP TRIGGER \"names' it\";"));
    phone.execute(&insert_task("u")).expect("runs");
    assert_eq!(count_of_l(&phone), [1.into()]);
}

#[test]
fn opening_again_changes_nothing_about_triggers() {
    let schema = |phone: &Phone| {
        let file = Connection::open(phone.path()).expect("opens");
        let version: i64 = file.query_row("PRAGMA schema_version", [], |row| row.get(0)).expect("reads");
        version
    };
    let phone = phone();
    let before = schema(&phone);
    let phone = phone.upgrade(&version(TRIGGERS));
    assert_eq!(schema(&phone), before);
}

/// Through a local table, and through a cascade: what writes tracked tables in the end is a rule, wherever it is.
#[test]
fn a_trigger_on_a_local_table_that_writes_a_tracked_one_is_a_rule_too() {
    let mut phone = Phone::new(&version(
        "CREATE TRIGGER IF NOT EXISTS notes AFTER INSERT ON tasks BEGIN INSERT INTO local_steps VALUES (NEW.list); END;
         CREATE TRIGGER IF NOT EXISTS counts AFTER INSERT ON local_steps BEGIN
             UPDATE lists SET n = n + 1 WHERE id = NEW.step; END;",
    ));
    phone.take(vec![list_of(1, NOW - 9, "l", 0)]).expect("integrates");
    phone.execute(&insert_task("t")).expect("runs");
    phone.take(vec![task_of(2, NOW - 5, "s", 1)]).expect("rewinds, and integrates");
    assert_eq!(count_of_l(&phone), [2.into()]);
    assert_eq!(phone.column("SELECT count(*) AS c FROM local_steps"), [3.into()], "the local table follows each time");
}

#[test]
fn a_trigger_that_is_no_part_of_the_file_may_not_write_tracked_tables() {
    let temporary = "CREATE TEMP TRIGGER one_more AFTER INSERT ON tasks BEGIN UPDATE lists SET n = n + 1; END;";
    let Version { schema, tables, .. } = version(temporary);
    let error = open_with(&schema, tables).expect_err("refused");
    assert!(matches!(&error, StoreError::Unsuitable { problem, .. } if problem.contains("TEMP")), "{error}");
}
