//! APP: items of the behaviours to test that concern applying patches and taking them back, on the store itself.
//!
//! Where they differ, the design is tested: undo is each replica's own (APP-13), so there is no shared reverse patch to
//! apply; a rewind starts at an action and takes everything after it along (APP-09, APP-10).

use synchrotron_core::model::{ActionId, AudienceKey, Columns, Effect, Patch, RowId, TableName, Value};
use synchrotron_core::store::{SqliteStore, Store, StoreTxn};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{SCHEMA, settings, tables};

/// One committed transaction on a fresh database.
fn on_fresh(work: impl FnOnce(&dyn StoreTxn)) {
    let (_folder, mut store) = fresh();
    let txn = store.begin().expect("begins");
    work(&*txn);
    txn.commit().expect("commits");
}

fn fresh() -> (TempDir, SqliteStore) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&settings(&folder.path().join("app.db"), SCHEMA, tables())).expect("opens");
    (folder, store)
}

fn id(n: u128) -> ActionId {
    ActionId::from_uuid(Uuid::from_u128(n))
}

fn columns<const N: usize>(pairs: [(&str, Value); N]) -> Columns {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

fn patch(sequence: u32, table: &str, row: &str, audience: &str, effect: Effect) -> Patch {
    Patch {
        sequence,
        table: TableName::new(table).expect("ok"),
        row_id: RowId::new(row).expect("ok"),
        audience_key: AudienceKey::new(audience).expect("ok"),
        effect,
    }
}

fn list(sequence: u32, row: &str, name: &str) -> Patch {
    patch(sequence, "lists", row, "p", Effect::Insert(columns([("name", name.into())])))
}

fn rename(sequence: u32, row: &str, name: &str) -> Patch {
    patch(sequence, "lists", row, "p", Effect::Update(columns([("name", name.into())])))
}

fn run(txn: &dyn StoreTxn, action: u128, sql: &str) {
    txn.begin_action(id(action)).expect("begins");
    txn.as_sql().execute(sql, &[]).expect("runs");
    txn.end_action();
}

fn rows(txn: &dyn StoreTxn, sql: &str) -> Vec<Columns> {
    txn.as_sql().query(sql, &[]).expect("reads").iter().map(synchrotron_core::store::Row::columns).collect()
}

fn names(txn: &dyn StoreTxn) -> Vec<Columns> {
    rows(txn, "SELECT id, name FROM lists ORDER BY id")
}

fn named<const N: usize>(pairs: [(&str, &str); N]) -> Vec<Columns> {
    pairs.map(|(id, name)| columns([("id", id.into()), ("name", name.into())])).into()
}

#[test]
fn app_01_a_patch_sets_what_it_says() {
    on_fresh(|txn| {
        run(txn, 1, "INSERT INTO notes (id, owner, title, score) VALUES ('n', 'alice', 'old', 1.5)");
        let effect = Effect::Update(columns([("body", b"new".to_vec().into()), ("title", "new".into())]));
        txn.apply_patch(id(2), &[patch(0, "notes", "n", "user:alice", effect)]).expect("applies");
        let expected = columns([("body", b"new".to_vec().into()), ("score", 1.5.into()), ("title", "new".into())]);
        assert_eq!(rows(txn, "SELECT title, body, score FROM notes"), [expected]);
    });
}

#[test]
fn app_02_taking_back_restores_every_column_nested_json_included() {
    on_fresh(|txn| {
        let insert = r#"INSERT INTO notes (id, owner, title, score, tags) VALUES ('n', 'alice', 'initial', 10, '{"key":{"deep":[1]}}')"#;
        run(txn, 1, insert);
        let before = rows(txn, "SELECT * FROM notes");
        run(txn, 2, r#"UPDATE notes SET title = 'changed', score = 99, tags = '{"key":"changed"}'"#);
        assert_ne!(rows(txn, "SELECT * FROM notes"), before);
        txn.rewind(id(2)).expect("rewinds");
        assert_eq!(rows(txn, "SELECT * FROM notes"), before);
        assert_eq!(before[0]["tags"], Value::Json(r#"{"key":{"deep":[1]}}"#.into()));
    });
}

#[test]
fn app_03_an_insert_may_be_applied_twice() {
    on_fresh(|txn| {
        txn.apply_patch(id(1), &[list(0, "l", "value-1")]).expect("applies");
        txn.apply_patch(id(2), &[list(0, "l", "value-1")]).expect("again");
        assert_eq!(names(txn), named([("l", "value-1")]));
        assert!(!txn.has_effects(id(2)).expect("reads"), "the second time it did nothing");
    });
}

#[test]
fn app_04_the_audience_travels_beside_the_columns_and_reaches_a_plain_column() {
    on_fresh(|txn| {
        txn.apply_patch(id(1), &[list(0, "l", "x")]).expect("applies");
        assert_eq!(rows(txn, "SELECT audience_key FROM lists"), [columns([("audience_key", "p".into())])]);
    });
}

#[test]
fn app_05_generated_columns_are_computed_here_whatever_a_patch_says() {
    on_fresh(|txn| {
        let insert = Effect::Insert(columns([("owner", "alice".into()), ("title", "four".into())]));
        txn.apply_patch(id(1), &[patch(0, "notes", "n", "user:mallory", insert)]).expect("applies");
        let expected = columns([("audience_key", "user:alice".into()), ("title_length", 4.into())]);
        assert_eq!(rows(txn, "SELECT audience_key, title_length FROM notes"), [expected]);
        let captured = txn.captured(id(1)).expect("reads").remove(0);
        assert_eq!(captured.audience_key.as_str(), "user:alice", "and captured as it is");
        let generated = Effect::Update(columns([("title_length", 9.into())]));
        txn.apply_patch(id(2), &[patch(0, "notes", "n", "user:alice", generated)]).expect("leaves it out");
        assert!(!txn.has_effects(id(2)).expect("reads"), "no column that travels");
    });
}

#[test]
fn app_06_08_patches_of_many_rows_are_applied_in_sequence() {
    on_fresh(|txn| {
        txn.apply_patch(id(1), &[]).expect("nothing to do");
        txn.apply_patch(id(2), &[list(0, "a", "one"), list(1, "b", "two")]).expect("applies");
        txn.apply_patch(id(3), &[rename(0, "a", "First"), rename(1, "a", "Second"), rename(2, "b", "new")])
            .expect("applies");
        assert_eq!(names(txn), named([("a", "Second"), ("b", "new")]));
    });
}

#[test]
fn app_09_10_a_rewind_takes_back_an_action_and_all_after_it_and_no_other() {
    on_fresh(|txn| {
        txn.apply_patch(id(1), &[list(0, "l", "created")]).expect("applies");
        for (action, name) in [(2, "A"), (3, "B"), (4, "C")] {
            txn.apply_patch(id(action), &[rename(0, "l", name)]).expect("applies");
        }
        txn.rewind(id(3)).expect("rewinds");
        assert_eq!(names(txn), named([("l", "A")]));
        let applied = [1, 2, 3, 4].map(|action| txn.has_effects(id(action)).expect("reads"));
        assert_eq!(applied, [true, true, false, false], "B and C are undone, and exactly these");
        assert_eq!(txn.rewind(id(99)).expect("an action without effects"), []);
        txn.rewind(id(1)).expect("to the beginning");
        assert_eq!(names(txn), named([]));
    });
}

#[test]
fn app_11_absent_rows_are_left_alone_and_keys_are_never_set() {
    on_fresh(|txn| {
        let delete = patch(1, "lists", "absent", "p", Effect::Delete);
        txn.apply_patch(id(1), &[rename(0, "absent", "x"), delete]).expect("silently nothing");
        assert_eq!(names(txn), named([]));
        txn.apply_patch(id(2), &[list(0, "l", "x")]).expect("applies");
        txn.apply_patch(id(3), &[patch(0, "lists", "l", "p", Effect::Update(Columns::new()))]).expect("no columns");
        for key in ["id", "audience_key"] {
            let forged = Effect::Update(columns([(key, "forged".into())]));
            txn.apply_patch(id(4), &[patch(0, "lists", "l", "p", forged)]).expect("leaves it out");
            assert!(!txn.has_effects(id(4)).expect("reads"), "keys travel beside the columns");
        }
        txn.apply_patch(id(5), &[patch(0, "lists", "l", "p", Effect::Delete)]).expect("applies");
        txn.rewind(id(5)).expect("rewinds");
        assert_eq!(rows(txn, "SELECT * FROM lists")[0]["audience_key"], "p".into(), "the whole row is back");
    });
}

#[test]
fn app_13_undo_is_what_this_replica_saw_not_what_the_author_saw() {
    on_fresh(|txn| {
        run(txn, 1, "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'T0', 'p')");
        run(txn, 2, "UPDATE lists SET name = 'A'");
        // Its author never saw A: the name was T0 there. It is A here, and A is what comes back.
        txn.apply_patch(id(3), &[rename(0, "l", "B")]).expect("applies");
        txn.rewind(id(3)).expect("rewinds");
        assert_eq!(names(txn), named([("l", "A")]));
    });
}

#[test]
fn app_16_two_databases_share_nothing() {
    let (_one, mut first) = fresh();
    let (_two, mut second) = fresh();
    let txn = first.begin().expect("begins");
    txn.apply_patch(id(1), &[list(0, "l", "x")]).expect("applies");
    txn.commit().expect("commits");
    let txn = second.begin().expect("begins");
    assert_eq!(names(&*txn), named([]));
    // What is generated in one database need not be in another: shapes are each connection's own.
    drop(txn);
    let plain = "CREATE TABLE notes (id TEXT PRIMARY KEY, title_length INTEGER, audience_key TEXT NOT NULL)";
    let folder = tempfile::tempdir().expect("a folder");
    let table = vec![synchrotron_core::action::Table::new("notes").given_ids()];
    let mut third = SqliteStore::open(&settings(&folder.path().join("app.db"), plain, table)).expect("opens");
    let txn = third.begin().expect("begins");
    let effect = Effect::Insert(columns([("title_length", 7.into())]));
    txn.apply_patch(id(1), &[patch(0, "notes", "n", "user:bob", effect)]).expect("an ordinary column there");
    assert_eq!(rows(&*txn, "SELECT audience_key FROM notes")[0]["audience_key"], "user:bob".into());
}
