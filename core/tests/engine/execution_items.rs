//! ACT, DID-08: items of the behaviours to test that concern the registry and execution, beside those in `execute`.
//!
//! ACT-01, ACT-03 and ACT-06 are beside the registry; no tag is reserved, since corrections have none. ACT-02 and ACT-04:
//! an action is a plain value, and its time is the execution's (`act_02`). ACT-05: what is recorded are encoded bytes.

use synchrotron_core::action::{ActionError, Table};
use synchrotron_core::engine::ExecuteError;
use synchrotron_core::model::{RecordBody, Value};
use synchrotron_core::store::StoreError;

use crate::support::{Device, NOW, RunSql, open_with, sql, story};

const LIST: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')";

#[test]
fn act_02_05_a_record_holds_arguments_and_time_as_they_were_at_execution() {
    let mut device = Device::new();
    let mut action = sql(&[LIST]);
    device.run_action(&action).expect("runs");
    action.statements.clear();
    let sent = device.batch().expect("pending").batch.records.remove(0);
    let RecordBody::Action { tag, args } = sent.body else { panic!("an action") };
    assert_eq!(tag.as_str(), "run_sql_v1");
    let recorded: RunSql = rmp_serde::from_slice(args.as_bytes()).expect("decodes");
    assert_eq!(recorded.statements, [(LIST.to_owned(), vec![])]);
    assert_eq!(sent.clock.millis(), NOW);
}

#[test]
fn act_07_a_record_is_pending_and_its_rows_can_be_read_at_once() {
    let mut device = Device::new();
    let id = device.run(&[LIST]).expect("runs");
    let record = device.rows("SELECT server_ingest_id, clock > 0 AS ticked, row_count FROM action_records").remove(0);
    assert_eq!(
        (&record["server_ingest_id"], &record["ticked"], &record["row_count"]),
        (&Value::Null, &1.into(), &1.into())
    );
    assert_eq!(device.engine.fate(id).expect("reads"), None);
    assert_eq!(device.rows("SELECT name FROM lists")[0]["name"], "one".into());
}

#[test]
fn act_08_a_failure_says_what_failed_and_never_a_value() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    let secret = "a-secret-value";
    let insert = "INSERT INTO lists (id, name, audience_key) VALUES (?, 'one', 'p')".to_owned();
    let error = device.run_action(&RunSql { statements: vec![(insert, vec![secret.into()])] }).expect_err("unique");
    assert!(matches!(error, ExecuteError::Action(ActionError::Sql(_))), "{error:?}");
    let words = error.to_string();
    assert!(words.contains("lists.name") && !words.contains(secret), "{words}");
}

#[test]
fn act_09_what_failed_leaves_no_gap_and_the_next_clock_is_later_than_the_last_kept() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["UPDATE lists SET name = 'x'", "INSERT INTO nowhere VALUES (1)"]).expect_err("no such table");
    device.run(&["UPDATE lists SET name = 'two'"]).expect("runs");
    let clocks: Vec<_> = device.batch().expect("pending").batch.records.iter().map(|record| record.clock).collect();
    assert_eq!(clocks.len(), 2);
    assert!(clocks[0] < clocks[1], "{clocks:?}");
    assert_eq!(device.rows("SELECT name FROM lists")[0]["name"], "two".into());
}

#[test]
fn act_11_a_loaded_row_is_written_back_without_its_generated_columns() {
    let mut device = Device::new();
    device.run(&["INSERT INTO notes (id, owner, title) VALUES ('n', 'alice', 'value-1')"]).expect("runs");
    for value in ["value-2", "value-3"] {
        device.run(&[&format!("UPDATE notes SET title = '{value}', owner = 'alice' WHERE id = 'n'")]).expect("runs");
        assert_eq!(story(&device.newest_patch()), [format!("0 UPDATE notes.n {{title='{value}'}}")]);
    }
    // Design: SQLite itself refuses to set a generated column; nothing is dropped silently.
    device.run(&["UPDATE notes SET audience_key = 'user:mallory' WHERE id = 'n'"]).expect_err("generated");
    assert_eq!(device.rows("SELECT audience_key FROM notes")[0]["audience_key"], "user:alice".into());
}

#[test]
fn an_action_cannot_end_the_transaction_beneath_it() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    for rolls_back in [
        "INSERT OR ROLLBACK INTO lists (id, name, audience_key) VALUES ('m', 'one', 'p')",
        "update or /* */ rollback lists set name = 'one'",
    ] {
        let error = device.run(&[rolls_back]).expect_err(rolls_back);
        assert!(error.to_string().contains("may not ROLLBACK"), "{error}");
    }
    // The word itself is no crime.
    device
        .run(&["INSERT INTO lists (id, name, audience_key) VALUES ('m', 'ROLLBACK', 'p') -- rollback"])
        .expect("text");
    assert_eq!(device.pending().len(), 2);
    for schema in [
        "CREATE TABLE t (id TEXT PRIMARY KEY, name TEXT UNIQUE ON CONFLICT ROLLBACK, audience_key TEXT)",
        "CREATE TABLE t (id TEXT PRIMARY KEY, audience_key TEXT); \
         CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT RAISE(ROLLBACK, 'no'); END",
    ] {
        let error = open_with(schema, vec![Table::new("t").given_ids()]).expect_err(schema);
        assert!(matches!(error, StoreError::Unsuitable { problem, .. } if problem.contains("ROLLBACK")), "{error}");
    }
}
