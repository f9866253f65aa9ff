//! CAP: what statements do to rows becomes patches, exactly.

use synchrotron_core::action::Table;
use synchrotron_core::engine::ExecuteError;
use synchrotron_core::model::Value;
use synchrotron_core::store::StoreError;

use crate::support::{Device, ODD_AUDIENCE, RunSql, SCHEMA, open_with, story};

const LIST: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')";

#[test]
fn cap_03_04_05_unsuitable_tables_are_named_with_their_fault() {
    let cases = [
        (
            "CREATE TABLE t (key TEXT PRIMARY KEY, audience_key TEXT)",
            "its primary key must be a column `id` of type TEXT",
        ),
        (
            "CREATE TABLE t (id INTEGER PRIMARY KEY, audience_key TEXT)",
            "its primary key must be a column `id` of type TEXT",
        ),
        ("CREATE TABLE t (id TEXT PRIMARY KEY)", "it needs a column `audience_key`, plain or generated"),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, audience_key INTEGER)",
            "its column `audience_key` must be of type TEXT",
        ),
        (
            "CREATE TABLE t (id TEXT COLLATE NOCASE PRIMARY KEY, audience_key TEXT)",
            "its columns `id` and `audience_key` are compared byte by byte everywhere: give them no collation but BINARY",
        ),
        (
            "CREATE TABLE t (id TEXT PRIMARY KEY, of TEXT, \
             audience_key TEXT COLLATE RTRIM GENERATED ALWAYS AS ('a' || of) VIRTUAL)",
            "its columns `id` and `audience_key` are compared byte by byte everywhere: give them no collation but BINARY",
        ),
        ("SELECT 1", "no such table: create it in the app's schema"),
    ];
    for (schema, problem) in cases {
        let error = open_with(schema, vec![Table::new("t").given_ids()]).expect_err(problem);
        assert_eq!(error, StoreError::Unsuitable { table: "t".into(), problem }, "{schema}");
    }
    let no_identity = open_with(SCHEMA, vec![Table::new("lists")]).expect_err("no identity");
    assert!(matches!(no_identity, StoreError::Unsuitable { problem, .. } if problem.contains("identity")));
}

#[test]
fn a_foreign_key_that_is_checked_only_at_the_commit_is_refused() {
    let parent = "CREATE TABLE t (id TEXT PRIMARY KEY, deferred TEXT, audience_key TEXT NOT NULL);";
    let child = |reference: &str| {
        format!(
            "{parent} CREATE TABLE Child (id TEXT PRIMARY KEY, t TEXT REFERENCES {reference}, audience_key TEXT NOT NULL)"
        )
    };
    let deferred = child("T (id) DEFERRABLE /* later */ INITIALLY\nDEFERRED");
    for (tracked, named) in [(&["t"][..], "t"), (&["Child"], "Child"), (&["Child", "t"], "Child")] {
        let tables = tracked.iter().map(|table| Table::new(*table).given_ids()).collect();
        let error = open_with(&deferred, tables).expect_err("deferred");
        assert!(
            matches!(&error, StoreError::Unsuitable { table, problem }
                if table == named && problem.contains("INITIALLY IMMEDIATE")),
            "{tracked:?}: {error}"
        );
    }
    for fine in [child("t (id) DEFERRABLE INITIALLY IMMEDIATE"), child("t (id)")] {
        open_with(&fine, ["t", "Child"].map(|table| Table::new(table).given_ids()).into()).expect(&fine);
    }
    let mut device = Device::new();
    let error = device.run(&["PRAGMA defer_foreign_keys = ON"]).expect_err("actions may not defer them either");
    assert!(error.to_string().contains("not authorized"), "{error}");
}

#[test]
fn cap_07_13_an_insert_carries_every_column_but_key_audience_and_generated_ones() {
    let mut device = Device::new();
    device
        .run(&["INSERT INTO notes (id, owner, title, body, score, done, tags) \
                VALUES ('n', 'alice', 'T', x'00ff', 1, 1, '{\"a\":1}')"])
        .expect("runs");
    let patch = device.newest_patch();
    assert_eq!(
        story(&patch),
        ["0 INSERT notes.n {body=[0, 255], done=true, owner='alice', score=1.0, tags=json {\"a\":1}, title='T'}"]
    );
    assert_eq!(patch[0].audience_key.as_str(), "user:alice");
}

#[test]
fn cap_08_12_effects_of_one_row_stay_apart_and_in_sequence() {
    let mut device = Device::new();
    device.run(&[LIST, "UPDATE lists SET name = 'two' WHERE id = 'l'", "DELETE FROM lists"]).expect("runs");
    assert_eq!(
        story(&device.newest_patch()),
        ["0 INSERT lists.l {name='one'}", "1 UPDATE lists.l {name='two'}", "2 DELETE lists.l"]
    );
}

#[test]
fn an_update_carries_explicit_nulls_and_only_what_changed() {
    let mut device = Device::new();
    device.run(&["INSERT INTO notes (id, owner, title, score) VALUES ('n', 'alice', 'T', 2.5)"]).expect("runs");
    device.run(&["UPDATE notes SET title = NULL, score = 2.5, owner = owner"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 UPDATE notes.n {title=null}"]);
}

#[test]
fn cap_17_a_no_op_update_is_no_effect() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["UPDATE lists SET name = 'one'"]).expect("runs");
    assert_eq!(device.newest_patch(), []);
}

#[test]
fn replace_is_a_delete_and_an_insert() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device.run(&["INSERT OR REPLACE INTO lists (id, name, audience_key) VALUES ('m', 'one', 'p')"]).expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 DELETE lists.l", "1 INSERT lists.m {name='one'}"]);
}

#[test]
fn upsert_is_an_update() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    device
        .run(&["INSERT INTO lists (id, name, audience_key) VALUES ('l', 'up', 'p') \
                ON CONFLICT (id) DO UPDATE SET name = excluded.name"])
        .expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 UPDATE lists.l {name='up'}"]);
}

#[test]
fn cascades_are_captured() {
    let mut device = Device::new();
    device
        .run(&[LIST, "INSERT INTO items (id, list_id, text, audience_key) VALUES ('i', 'l', 'x', 'p')"])
        .expect("runs");
    device.run(&["DELETE FROM lists WHERE id = 'l'"]).expect("runs");
    let mut story = story(&device.newest_patch());
    story.iter_mut().for_each(|line| drop(line.drain(..2)));
    story.sort();
    assert_eq!(story, ["DELETE items.i", "DELETE lists.l"]);
}

#[test]
fn a_failed_statement_leaves_no_captured_effect() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    // OR FAIL keeps the rows before the conflict; OR IGNORE skips it. Both are captured as they end.
    device
        .run(&["INSERT OR IGNORE INTO lists (id, name, audience_key) VALUES ('a', 'new', 'p'), ('b', 'one', 'p')"])
        .expect("runs");
    assert_eq!(story(&device.newest_patch()), ["0 INSERT lists.a {name='new'}"]);
    device
        .run(&["INSERT INTO lists (id, name, audience_key) VALUES ('c', 'c', 'p'), ('d', 'one', 'p')"])
        .expect_err("unique");
    assert_eq!(device.count("lists"), 2);
    assert_eq!(device.pending().len(), 2);
}

#[test]
fn cap_19_audience_and_id_never_change() {
    let mut device = Device::new();
    device.run(&[LIST]).expect("runs");
    for move_it in ["UPDATE lists SET audience_key = 'q'", "UPDATE lists SET id = 'other'"] {
        let error = device.run(&[move_it]).expect_err("refused");
        assert!(error.to_string().contains("id and audience_key never change"), "{error}");
    }
    let owner_moves = device.run(&[
        "INSERT INTO notes (id, owner) VALUES ('n', 'alice')",
        "UPDATE notes SET owner = 'bob'", // moves the generated audience
    ]);
    assert!(owner_moves.expect_err("refused").to_string().contains("never change"));
    device.run(&["INSERT INTO lists (id, name, audience_key) VALUES ('e', 'e', '')"]).expect_err("an empty audience");
}

#[test]
fn quotes_in_names_and_odd_audiences_are_only_text() {
    let mut device = Device::new();
    let statements = vec![(
        r#"INSERT INTO "odd ""name's" (id, "a ""column's", audience_key) VALUES ('o', 'v', ?)"#.to_owned(),
        vec![Value::from(ODD_AUDIENCE)],
    )];
    device.run_action(&RunSql { statements }).expect("runs");
    let patch = device.newest_patch();
    assert_eq!(story(&patch), ["0 INSERT odd \"name's.o {a \"column's='v'}"]);
    assert_eq!(patch[0].audience_key.as_str(), ODD_AUDIENCE);
}

#[test]
fn nan_is_refused_and_other_awkward_values_are_kept() {
    let mut device = Device::new();
    let insert = |value: Value| RunSql {
        statements: vec![
            ("DELETE FROM notes".to_owned(), vec![]),
            ("INSERT INTO notes (id, owner, score) VALUES ('n', 'alice', ?)".to_owned(), vec![value]),
        ],
    };
    let refused = device.run_action(&insert(Value::Real(f64::NAN))).expect_err("NaN");
    assert!(matches!(refused, ExecuteError::Action(_)), "{refused}");
    for kept in [f64::INFINITY, f64::MIN_POSITIVE, 0.1 + 0.2] {
        device.run_action(&insert(Value::Real(kept))).expect("runs");
        let patch = device.newest_patch();
        let columns = patch.last().and_then(|patch| patch.effect.columns()).expect("an insert");
        assert_eq!(columns["score"], Value::Real(kept));
        assert_eq!(device.rows("SELECT score FROM notes")[0]["score"], Value::Real(kept));
    }
}
