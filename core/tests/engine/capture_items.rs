//! CAP, SQ, TYP: items of the behaviours to test that concern capture, beside those in `capture` and `guard`.
//!
//! Not here: CAP-02 and TYP-02 concern SQL functions of the server; CAP-16's scope without tracking does not exist, and
//! what stands for it is that undo is no effect (`cap_16`).

use rusqlite::Connection;
use synchrotron_core::model::{Effect, Value};
use synchrotron_core::params;

use crate::support::{Device, RunSql, story};

const LIST: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')";
const NOTE: &str =
    "INSERT INTO notes (id, owner, title, done, tags) VALUES ('n', 'alice', 'T', FALSE, '[\"tag1\",\"tag2\"]')";

fn with(statement: &str, values: &[Value]) -> RunSql {
    RunSql { statements: vec![(statement.to_owned(), values.to_vec())] }
}

#[test]
fn cap_01_the_sync_tables_have_their_columns_and_each_tracked_table_its_triggers() {
    let device = Device::new();
    let columns = |table: &str| -> Vec<String> {
        let rows = device.rows(&format!("SELECT name FROM pragma_table_info('{table}')"));
        rows.into_iter().map(|row| format!("{:?}", row["name"]).replace("Text(\"", "").replace("\")", "")).collect()
    };
    for (table, expected) in [
        ("action_records", &["id", "tag", "args", "client_id", "user_id", "clock", "server_ingest_id"][..]),
        (
            "action_modified_rows",
            &["action_id", "sequence", "table_name", "row_id", "audience_key", "operation", "columns"],
        ),
        ("client_sync_status", &["client_id", "user_id", "epoch", "clock"]),
        ("local_quarantined_actions", &["id", "tag", "args", "kind", "reason"]),
    ] {
        let found = columns(table);
        let missing: Vec<_> = expected.iter().filter(|column| !found.contains(&(**column).to_owned())).collect();
        assert_eq!(missing, Vec::<&&str>::new(), "{table} has {found:?}");
    }
    let triggers = device.rows("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'notes'");
    assert_eq!(triggers.len(), 4, "insert, update, delete, and one against moves");
}

#[test]
fn cap_06_a_table_that_can_be_tracked_is_closed_at_once() {
    let device = Device::new();
    let other = Connection::open(device.path()).expect("opens");
    other.execute(LIST, []).expect_err("a plain INSERT outside any action");
    assert_eq!(device.count("lists"), 0);
}

#[test]
fn cap_09_10_a_delete_carries_nothing_and_undo_has_the_row_as_it_was_just_before() {
    let mut device = Device::new();
    device.run(&[NOTE]).expect("runs");
    device.run(&["UPDATE notes SET title = 'U', tags = '[\"updated\"]'", "DELETE FROM notes"]).expect("runs");
    assert_eq!(
        story(&device.newest_patch()),
        ["0 UPDATE notes.n {tags=json [\"updated\"], title='U'}", "1 DELETE notes.n"],
        "effects on one row are never merged"
    );
    // Each replica has its own undo; reverse images are not shared. The image: [before, after], packed.
    let undo = device.rows("SELECT operation, image FROM local_undo ORDER BY seq DESC LIMIT 1").remove(0);
    let Value::Bytes(image) = &undo["image"] else { panic!("an image is bytes") };
    let (before, after): (synchrotron_core::model::Columns, synchrotron_core::model::Columns) =
        rmp_serde::from_slice(image).expect("an image");
    assert_eq!(before["title"], "U".into());
    assert_eq!(before["tags"], Value::Json("[\"updated\"]".into()));
    assert_eq!(before.keys().collect::<Vec<_>>(), ["body", "done", "owner", "score", "tags", "title"]);
    assert!(after.is_empty());
}

#[test]
fn cap_12_sequences_follow_the_statements() {
    let mut device = Device::new();
    let id = device
        .run(&[
            "INSERT INTO lists (id, name, audience_key) VALUES ('1', 'A', 'p')",
            "UPDATE lists SET name = 'A2'",
            "DELETE FROM lists",
        ])
        .expect("runs");
    let (pending, patch) = device.pending().remove(0);
    assert_eq!(pending, id, "(action, sequence) is a row's identity");
    assert_eq!(story(&patch), ["0 INSERT lists.1 {name='A'}", "1 UPDATE lists.1 {name='A2'}", "2 DELETE lists.1"]);
}

#[test]
fn cap_14_15_a_refused_write_is_taken_back_as_a_whole() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    let other = Connection::open(device.path()).expect("opens");
    other.execute_batch("BEGIN; INSERT INTO untracked (id) VALUES ('u')").expect("nobody's table");
    let two = "INSERT INTO lists (id, name, audience_key) VALUES ('a', 'a', 'p'), ('b', 'b', 'p')";
    other.execute(two, []).expect_err("refused");
    other.execute_batch("COMMIT").expect("the transaction lives on");
    assert_eq!((device.count("lists"), device.count("untracked")), (1, 1), "ABORT, not FAIL and not ROLLBACK");
}

#[test]
fn cap_16_undo_is_no_effect() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["UPDATE lists SET name = 'two'", "INSERT INTO nowhere VALUES (1)"]).expect_err("no such table");
    assert_eq!(device.count("local_undo"), 1);
    assert_eq!(story(&device.newest_patch()), ["0 INSERT lists.l {name='one'}"]);
}

#[test]
fn cap_20_every_connection_captures_or_fails() {
    let mut first = Device::new();
    first.run(&[LIST]).expect("runs");
    // Another process with this library, on the same file.
    let store = synchrotron_core::store::SqliteStore::open(&crate::support::settings(
        &first.path(),
        crate::support::SCHEMA,
        crate::support::tables(),
    ))
    .expect("opens");
    let mut second = crate::support::engine_on(store);
    let action_id = synchrotron_core::model::ActionId::from_uuid(uuid::Uuid::from_u128(0xbeef));
    let input = synchrotron_core::engine::ExecuteInput::new(action_id, crate::support::NOW);
    second.execute(&with("UPDATE lists SET name = ?", params!["second"]), input).expect("runs");
    assert_eq!(story(&first.newest_patch()), ["0 UPDATE lists.l {name='second'}"], "the first sees it as pending work");
    first.run(&["UPDATE lists SET name = 'third'"]).expect("both go on");
}

#[test]
fn sq_01_02_booleans_are_booleans_in_patches_and_0_or_1_in_rows() {
    let mut device = Device::new();
    for (stored, patched) in [(Value::Bool(false), "false"), (Value::Bool(true), "true"), (1.into(), "true")] {
        device.run(&["DELETE FROM notes"]).expect("runs");
        device
            .run_action(&with("INSERT INTO notes (id, owner, done) VALUES ('n', 'alice', ?)", &[stored]))
            .expect("runs");
        let story = story(&device.newest_patch()).remove(0);
        assert!(story.contains(&format!("done={patched}")), "{story}");
        let kind = device.rows("SELECT typeof(done) AS kind FROM notes").remove(0);
        assert_eq!(kind["kind"], "integer".into());
    }
}

#[test]
fn sq_03_a_column_set_to_null_and_back_is_told_both_ways() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["UPDATE lists SET name = NULL"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 UPDATE lists.l {name=null}"]);
    device.run(&["UPDATE lists SET name = 'set'"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 UPDATE lists.l {name='set'}"]);
    device.run(&["UPDATE lists SET name = ''"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 UPDATE lists.l {name=''}"], "empty is not null");
}

#[test]
fn sq_04_replace_tells_what_it_removed_and_a_key_never_changes() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["INSERT OR REPLACE INTO lists (id, name, audience_key) VALUES ('l', 'two', 'p')"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 DELETE lists.l", "1 INSERT lists.l {name='two'}"]);
    device.run(&["UPDATE lists SET id = 'm'"]).expect_err("refused");
}

#[test]
fn sq_06_typ_01_json_travels_as_json_and_text_as_text() {
    let mut device = Device::new();
    device.run(&[NOTE]).expect("runs");
    let patch = device.newest_patch().remove(0);
    let Effect::Insert(columns) = patch.effect else { panic!("an INSERT") };
    assert_eq!(columns["tags"], Value::Json(r#"["tag1","tag2"]"#.into()), "a column declared JSON");
    let nested = r#"{"a":[1,{"b":[[null]]}],"n":12345678901234567890.123456789}"#;
    device.run_action(&with("UPDATE notes SET tags = ?, title = ?", params![nested, nested])).expect("runs");
    let columns = device.newest_patch().remove(0).effect.columns().cloned().expect("an UPDATE");
    assert_eq!(columns["tags"], Value::Json(nested.into()));
    assert_eq!(columns["title"], Value::Text(nested.into()));
}

/// SQLite keeps a bare number of a JSON column as a number; it is JSON all the same.
#[test]
fn sq_06_a_json_document_may_be_a_bare_number() {
    let mut device = Device::new();
    device.run(&[NOTE]).expect("runs");
    for number in ["1", "-9223372036854775808", "0.5", "\"1\"", "true", "null"] {
        device.run_action(&with("UPDATE notes SET tags = ?", &[Value::Json(number.into())])).expect("runs");
        let columns = device.newest_patch().remove(0).effect.columns().cloned().expect("an UPDATE");
        assert_eq!(columns["tags"], Value::Json(number.into()));
        assert_eq!(device.rows("SELECT tags FROM notes")[0]["tags"], Value::Json(number.into()));
    }
}

#[test]
fn typ_03_no_number_passes_through_a_double_that_is_none() {
    let mut device = Device::new();
    device
        .run(&["INSERT INTO notes (id, owner, title) VALUES ('n', 'alice', '12345678901234567890.123456789')"])
        .expect("runs");
    let columns = device.newest_patch().remove(0).effect.columns().cloned().expect("an INSERT");
    assert_eq!(columns["title"], "12345678901234567890.123456789".into(), "decimals travel as text");
    for exact in [(1_i64 << 53) + 1, i64::MAX, i64::MIN] {
        // `body` has no affinity that turns an integer into anything else.
        device.run_action(&with("UPDATE notes SET body = ?", params![exact])).expect("runs");
        let columns = device.newest_patch().remove(0).effect.columns().cloned().expect("an UPDATE");
        assert_eq!(columns["body"], exact.into());
        assert_eq!(device.rows("SELECT body FROM notes")[0]["body"], exact.into());
    }
}
