//! U16 and U17: the schema here is older than what arrives, or changes under an open database.

use rusqlite::Connection;
use synchrotron_core::action::{Registry, Table};
use synchrotron_core::engine::EngineError;
use synchrotron_core::model::{Columns, Effect, TableName, Value};
use synchrotron_core::wire::LogRecord;

use crate::support::{NOW, RunSql, sql};
use crate::versions::{Phone, Version, columns, effect, remote};

const OLD: &str =
    "CREATE TABLE IF NOT EXISTS lists (id TEXT PRIMARY KEY, name TEXT NOT NULL, audience_key TEXT NOT NULL)";
const TAGS: &str = "CREATE TABLE IF NOT EXISTS tags (id TEXT PRIMARY KEY, text TEXT, audience_key TEXT NOT NULL)";
const STARS: &str = "ALTER TABLE lists ADD COLUMN stars INTEGER NOT NULL DEFAULT 1";

fn version(schema: &str, tables: &[&str]) -> Version {
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new");
    let tables = tables.iter().map(|table| Table::new(*table).given_ids()).collect();
    Version { schema: schema.to_owned(), tables, registry }
}

fn old() -> Version {
    version(OLD, &["lists"])
}

fn insert(number: i64, at_ms: i64, row: &str, all: Columns) -> LogRecord {
    remote(number, at_ms, "of_a_newer_app_v1", &sql(&[]), vec![effect("lists", row, Effect::Insert(all))])
}

fn list(name: &str, stars: i64) -> Columns {
    columns([("name", name.into()), ("stars", stars.into())])
}

fn set(number: i64, at_ms: i64, row: &str, set: Columns) -> LogRecord {
    remote(number, at_ms, "of_a_newer_app_v1", &sql(&[]), vec![effect("lists", row, Effect::Update(set))])
}

fn names(phone: &Phone) -> Vec<Value> {
    phone.column("SELECT name AS c FROM lists ORDER BY id")
}

fn stars(phone: &Phone) -> Vec<Value> {
    phone.column("SELECT stars AS c FROM lists ORDER BY id")
}

/// An old phone that took what newer ones made.
fn behind() -> Phone {
    let mut phone = Phone::new(&old());
    phone.take(vec![insert(1, NOW - 9, "l", list("one", 3))]).expect("integrates what it knows of it");
    phone.take(vec![set(2, NOW - 8, "l", columns([("stars", 4.into())]))]).expect("integrates nothing of it");
    let tagged = effect("tags", "t", Effect::Insert(columns([("text", "new".into())])));
    let named = effect("lists", "m", Effect::Insert(list("two", 5)));
    phone.take(vec![remote(3, NOW - 7, "of_a_newer_app_v1", &sql(&[]), vec![tagged, named])]).expect("integrates half");
    phone
}

#[test]
fn u16_known_columns_sync_and_unknown_ones_are_never_nulled() {
    let mut phone = behind();
    assert_eq!(names(&phone), ["one".into(), "two".into()]);
    phone.execute(&sql(&["UPDATE lists SET name = 'mine' WHERE id = 'l'"])).expect("runs");
    let unsent = phone.unsent();
    assert_eq!(unsent.len(), 1, "and no correction");
    let only_the_name = Effect::Update(columns([("name", "mine".into())]));
    assert_eq!(unsent[0].rows.iter().map(|row| &row.effect).collect::<Vec<_>>(), [&only_the_name]);
}

#[test]
fn u16_an_action_that_this_version_cannot_do_whole_is_not_run() {
    let mut phone = Phone::new(&old());
    let insert = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'as run here', 'p')";
    let rows = vec![effect("lists", "l", Effect::Insert(list("as its author did", 3)))];
    phone.take(vec![remote(1, NOW, "run_sql_v1", &sql(&[insert]), rows)]).expect("integrates");
    assert_eq!(names(&phone), ["as its author did".into()]);
    assert_eq!(phone.unsent(), [], "nothing is judged on half a row");
}

#[test]
fn u16_what_did_not_fit_appears_after_the_upgrade_without_the_server() {
    let phone = behind();
    let mut phone = phone.upgrade(&version(&format!("{OLD};{STARS};{TAGS}"), &["lists", "tags"]));
    phone.engine.refit().expect("goes through history again");
    assert_eq!(stars(&phone), [4.into(), 5.into()]);
    assert_eq!(phone.column("SELECT text AS c FROM tags"), ["new".into()]);
    assert_eq!(phone.unsent(), []);
    assert_eq!(phone.engine.snapshot_request().expect("reads"), None, "the log had it all");
    assert_eq!(phone.engine.refit().expect("once is enough"), Default::default());
}

#[test]
fn u16_pending_work_is_kept_over_the_upgrade_and_in_its_place() {
    let mut phone = behind();
    let mine = phone.execute(&sql(&["UPDATE lists SET name = 'mine' WHERE id = 'l'"])).expect("runs");
    let mut phone = phone.upgrade(&version(&format!("{OLD};{STARS}"), &["lists"]));
    phone.take(vec![set(4, NOW + 9, "m", columns([("stars", 0.into())]))]).expect("integrating goes back too");
    assert_eq!((names(&phone), stars(&phone)), (vec!["mine".into(), "two".into()], vec![4.into(), 0.into()]));
    assert_eq!(phone.unsent().into_iter().map(|record| record.id).collect::<Vec<_>>(), [mine]);
    let mut phone = phone.upgrade(&version(&format!("{OLD};{TAGS}"), &["lists", "tags"]));
    phone.engine.refit().expect("the table came one version later");
    assert_eq!(phone.column("SELECT text AS c FROM tags"), ["new".into()]);
}

#[test]
fn u16_a_column_that_older_apps_do_not_send_takes_its_default() {
    let mut phone = Phone::new(&version(&format!("{OLD};{STARS}"), &["lists"]));
    let of_an_old_app = columns([("name", "one".into())]);
    phone.take(vec![insert(1, NOW, "l", of_an_old_app)]).expect("integrates");
    assert_eq!(stars(&phone), [1.into()]);
}

#[test]
fn u16_what_cannot_be_stored_at_all_asks_for_an_upgrade_and_loses_nothing() {
    let mut phone = Phone::new(&old());
    phone.take(vec![insert(1, NOW - 9, "l", list("one", 3))]).expect("integrates");
    let mine = phone.execute(&sql(&["UPDATE lists SET name = 'mine' WHERE id = 'l'"])).expect("runs");
    // The newer schema calls the name a title.
    let renamed = insert(2, NOW, "m", columns([("title", "two".into())]));
    let required =
        EngineError::UpgradeRequired { table: TableName::new("lists").expect("ok"), column: "name".to_owned() };
    for _ in 0..2 {
        assert_eq!(phone.take(vec![renamed.clone()]), Err(required.clone()));
    }
    phone.execute(&sql(&["UPDATE lists SET name = 'local work goes on'"])).expect("runs");
    assert_eq!(phone.unsent().first().map(|record| record.id), Some(mine));
    assert_eq!(phone.engine.quarantined().expect("reads"), []);
    let cursors = phone.engine.cursors().expect("reads");
    assert_eq!(cursors[&crate::versions::audience("p")].get(), 1, "it will be fetched again");

    let relaxed =
        "CREATE TABLE IF NOT EXISTS lists_2 (id TEXT PRIMARY KEY, name TEXT, title TEXT, audience_key TEXT NOT NULL);
        INSERT INTO lists_2 (id, name, audience_key) SELECT id, name, audience_key FROM lists;
        DROP TABLE lists; ALTER TABLE lists_2 RENAME TO lists";
    let mut phone = phone.upgrade(&version(relaxed, &["lists"]));
    phone.take(vec![renamed]).expect("the upgraded app takes it");
    assert_eq!(phone.column("SELECT title AS c FROM lists WHERE id = 'm'"), ["two".into()]);
    assert_eq!(phone.unsent().len(), 2, "and still has its pending work");
}

#[test]
fn u16_a_column_that_is_dropped_here_does_not_stop_a_rewind() {
    let mut phone = Phone::new(&version(&format!("{OLD};{STARS}"), &["lists"]));
    phone.take(vec![insert(1, NOW, "l", list("one", 3))]).expect("integrates");
    phone.take(vec![set(2, NOW + 1, "l", columns([("stars", 4.into())]))]).expect("integrates");
    let dropped = "DROP TRIGGER synchrotron_insert_lists; DROP TRIGGER synchrotron_update_lists;
        DROP TRIGGER synchrotron_delete_lists; ALTER TABLE lists DROP COLUMN stars";
    let mut phone = phone.upgrade(&version(dropped, &["lists"]));
    phone.take(vec![insert(3, NOW - 5, "k", list("zero", 0))]).expect("rewinds past both");
    assert_eq!(names(&phone), ["zero".into(), "one".into()]);
}

#[test]
fn u17_a_migration_by_another_connection_is_noticed_and_nobody_writes_past_capture() {
    let mut phone = behind();
    let other = Connection::open(phone.path()).expect("opens");
    other.execute_batch(STARS).expect("migrates");
    let past = other.execute("UPDATE lists SET stars = 9", []).expect_err("capture stays on guard");
    assert!(past.to_string().contains("synchrotron_"), "{past}");
    phone.execute(&sql(&["UPDATE lists SET stars = 2 WHERE id = 'l'"])).expect("runs");
    let captured = Effect::Update(columns([("stars", 2.into())]));
    assert_eq!(phone.unsent()[0].rows[0].effect, captured, "the new column is captured at once");
    phone.engine.refit().expect("and what did not fit is there");
    assert_eq!(stars(&phone), [2.into(), 5.into()]);
}

#[test]
fn u17_a_dropped_trigger_is_noticed_before_the_next_write() {
    let mut phone = behind();
    let other = Connection::open(phone.path()).expect("opens");
    other.execute_batch("DROP TRIGGER synchrotron_update_lists").expect("someone tampers");
    phone.execute(&sql(&["UPDATE lists SET name = 'mine' WHERE id = 'l'"])).expect("runs");
    assert_eq!(phone.unsent()[0].rows.len(), 1, "its effect is captured");
    other.execute("UPDATE lists SET name = 'x'", []).expect_err("the guard is back");
}

#[test]
fn u17_opening_again_changes_nothing_in_the_schema() {
    let phone = behind();
    let changes = |phone: &Phone| -> i64 {
        let reader = Connection::open(phone.path()).expect("opens");
        reader.query_row("PRAGMA schema_version", [], |row| row.get(0)).expect("reads")
    };
    let before = changes(&phone);
    let phone = phone.upgrade(&old());
    assert_eq!(changes(&phone), before, "other processes on the file need not look again");
}
