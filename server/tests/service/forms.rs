//! Values there and back: what a device writes, what a snapshot brings, and what SQLite makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use synchrotron_core::action::Table;
use synchrotron_core::model::{ClientId, Columns, Effect, Patch, RowsDigest, UserId, Value};
use synchrotron_core::store::{Durability, Reader, SqliteSettings, SqliteStore, Store};
use uuid::Uuid;

use crate::fixture::{Theatre, action_id, audience, patch};

pub(crate) const POSTGRES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'happy', 'so \"so\"');
    CREATE DOMAIN small_count AS smallint CHECK (VALUE < 100);
    CREATE DOMAIN tiny_count AS small_count;
    CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
    CREATE TABLE everything (id uuid PRIMARY KEY, audience_key text NOT NULL, yes boolean, small smallint, int integer,
        big bigint, tiny tiny_count, single real, double double precision, exact numeric(30, 10), money numeric(10, 2),
        words text, short varchar(3), blank char(5), raw bytea, doc jsonb, plain_doc json, ref uuid, at timestamptz,
        local timestamp, day date, clock time, span interval, list int[], times timestamptz[], mood mood,
        reach int4range, address inet, email email, digits numeric, words_list text[], grid int[], docs jsonb[],
        blobs bytea[], flags boolean[], reals double precision[], moods mood[], days date[], sums numeric(8, 2)[],
        twice int GENERATED ALWAYS AS (small + small::int) STORED, numbered bigint GENERATED ALWAYS AS IDENTITY);
    GRANT SELECT, INSERT, UPDATE, DELETE ON everything TO synchrotron_user;";
pub(crate) const SQLITE: &str = "CREATE TABLE everything (id TEXT PRIMARY KEY, audience_key TEXT NOT NULL, yes BOOLEAN,
    small INTEGER, int INTEGER, big INTEGER, tiny INTEGER, single REAL, double REAL, exact TEXT, money TEXT, words TEXT,
    short TEXT, blank TEXT, raw BLOB, doc JSON TEXT, plain_doc JSON, ref TEXT, at TEXT, local TEXT, day TEXT, clock TEXT,
    span TEXT, list TEXT, times TEXT, mood TEXT, reach TEXT, address TEXT, email TEXT,
    digits TEXT, words_list TEXT, grid TEXT, docs TEXT, blobs TEXT, flags TEXT, reals TEXT, moods TEXT, days TEXT, sums TEXT)";

/// One value of each column and more, in the one form of its type.
pub(crate) fn canonical() -> Vec<(&'static str, Value)> {
    let text = |text: &str| Value::Text(text.to_owned());
    vec![
        ("yes", Value::Bool(true)),
        ("yes", Value::Bool(false)),
        ("small", Value::Integer(-7)),
        ("int", Value::Integer(i32::MAX.into())),
        ("big", Value::Integer(i64::MAX)),
        ("big", Value::Integer(i64::MIN)),
        ("big", Value::Integer((1 << 53) + 1)),
        ("tiny", Value::Integer(99)),
        ("single", Value::Real(0.1)),
        ("single", Value::Real(-0.0)),
        ("double", Value::Real(f64::INFINITY)),
        ("double", Value::Real(-0.0)),
        ("double", Value::Real(1.0)),
        ("double", Value::Real(0.1 + 0.2)),
        ("double", Value::Real(5e-324)),
        ("double", Value::Real(f64::MAX)),
        ("exact", text("12345678901234567890.0123456789")),
        ("money", text("12.50")),
        ("words", text("")),
        ("words", text("quote ' \" \\ 🎭\n")),
        ("words", Value::Text("x".repeat(1 << 20))),
        ("short", text("abc")),
        ("blank", text("ab")),
        ("raw", Value::Bytes(vec![])),
        ("raw", Value::Bytes(vec![0, 255, 92])),
        ("doc", Value::Json(r#"{"a": [{"b": [[1]]}], "bc": 1.50}"#.to_owned())),
        ("doc", Value::Json("null".to_owned())),
        ("plain_doc", Value::Json("[1,  2]".to_owned())),
        ("ref", text("6ba7b810-9dad-11d1-80b4-00c04fd430c8")),
        ("at", text("2026-11-23T12:00:00Z")),
        ("at", text("2026-11-23T12:00:00.123456Z")),
        ("at", text("0044-03-15T00:00:00Z BC")),
        ("at", text("infinity")),
        ("local", text("2026-11-23T12:00:00.5")),
        ("day", text("2026-02-28")),
        ("clock", text("23:59:59.5")),
        ("span", text("1 day 02:00:00")),
        ("list", text("{1,NULL,3}")),
        ("times", text("{\"2026-11-23 12:00:00+00\"}")),
        ("mood", text("happy")),
        ("reach", text("[1,5)")),
        ("address", text("10.0.0.1")),
        ("double", Value::Real(f64::NEG_INFINITY)),
        ("exact", text("NaN")),
        ("digits", text(&format!("-{}.{}", "9".repeat(200), "7".repeat(100)))),
        ("digits", text("0.000")),
        ("email", text("a@b.example")),
        ("words", text("null")),
        ("words", text("{}")),
        ("doc", Value::Json("\"text\"".to_owned())),
        ("doc", Value::Json("12345678901234567890.123456789".to_owned())),
        ("doc", Value::Json(nested_json(200))),
        ("clock", text("24:00:00")),
        ("day", text("infinity")),
        ("span", text("-1 days +02:03:04.5")),
        ("mood", text("so \"so\"")),
        ("words_list", text("{\"a \\\"b\\\" \\\\ c\",NULL,\"NULL\",\"\",\"x,y\",\"{}\",plain}")),
        ("words_list", text("{}")),
        ("grid", text("{{1,2},{NULL,4}}")),
        ("docs", text("{\"{\\\"a\\\": [1, null]}\",NULL,\"null\"}")),
        ("blobs", text("{\"\\\\x00ff\",NULL}")),
        ("flags", text("{t,NULL,f}")),
        ("reals", text("{0.1,NaN,-0,Infinity,1e+300}")),
        ("moods", text("{happy,\"so \\\"so\\\"\"}")),
        ("days", text("{2026-02-28,-infinity}")),
        ("sums", text("{12.50,NULL}")),
    ]
}

/// Arrays in arrays, this deep; spaced as Postgres does.
fn nested_json(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

pub(crate) fn id_of(index: usize) -> String {
    Uuid::from_u128(index as u128 + 1).to_string()
}

fn insert(index: usize, columns: Columns) -> Patch {
    patch("everything", &id_of(index), "project:p", Effect::Insert(columns))
}

/// All columns, of which one has a value.
pub(crate) fn one(column: &str, value: &Value) -> Columns {
    let names = canonical().into_iter().map(|(name, _)| (name.to_owned(), Value::Null));
    names.chain([(column.to_owned(), value.clone())]).collect()
}

#[tokio::test]
async fn a_snapshot_brings_what_was_written_and_sqlite_agrees() {
    let theatre = Theatre::open_with(POSTGRES, &["everything"], |_| {}).await;
    let mut alice = theatre.device("alice");
    let written: Vec<Columns> = canonical().iter().map(|(column, value)| one(column, value)).collect();
    let rows = written.iter().enumerate().map(|(index, columns)| insert(index, columns.clone())).collect();
    alice.sync(vec![alice.action(10, rows)]).await;

    let (header, rows) = alice.take(&["project:p"]).await;
    assert_eq!(header.audiences[0].rows, written.len() as u64);
    let read: BTreeMap<String, Columns> =
        rows.iter().map(|row| (row.row_id.to_string(), row.columns.clone())).collect();
    for (index, columns) in written.iter().enumerate() {
        let (column, kind) = (canonical()[index].0, canonical()[index].1.kind());
        assert!(read[&id_of(index)] == *columns, "{column}: {kind} {:?}", read[&id_of(index)].get(column));
    }

    // What a snapshot brings changes nothing where it is written again.
    let again = rows.iter().map(|row| Patch {
        sequence: 0,
        table: row.table.clone(),
        row_id: row.row_id.clone(),
        audience_key: row.audience_key.clone(),
        effect: Effect::Update(row.columns.clone()),
    });
    alice.sync(vec![alice.action(20, again.collect())]).await;
    let (_, second) = alice.take(&["project:p"]).await;
    assert!(second.iter().all(|row| read[row.row_id.as_str()] == row.columns));

    let patches: Vec<Patch> = written.into_iter().enumerate().map(|(index, columns)| insert(index, columns)).collect();
    let stored = through_sqlite(&patches);
    for (index, (column, value)) in canonical().iter().enumerate() {
        let id = id_of(index);
        assert_eq!(digest([(&id, &read[&id])]), digest([(&id, &stored[&id])]), "{column}: {}", value.kind());
    }
    let told = alice.digests(&["project:p"]).await[&audience("project:p")];
    assert_eq!((told.rows, told.digest), (patches.len() as u64, digest(&stored)));
}

fn digest<'a>(rows: impl IntoIterator<Item = (&'a String, &'a Columns)>) -> RowsDigest {
    let mut digest = RowsDigest::default();
    for (id, columns) in rows {
        digest.add(&patch("everything", id, "project:p", Effect::Delete).row_key(), columns);
    }
    digest
}

/// These rows as a device's database holds them.
fn through_sqlite(patches: &[Patch]) -> BTreeMap<String, Columns> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    let mut store = SqliteStore::open(&SqliteSettings {
        path: path.clone(),
        schema: SQLITE.to_owned(),
        tables: vec![Table::new("everything").given_ids()],
        user_id: UserId::new("alice").expect("ok"),
        new_client_id: ClientId::from_uuid(Uuid::from_u128(1)),
        durability: Durability::Normal,
        busy_timeout: Duration::from_secs(1),
    })
    .expect("opens");
    let txn = store.begin().expect("begins");
    txn.apply_patch(action_id(), patches).expect("applies");
    txn.commit().expect("commits");
    let found = Reader::open(&path).expect("opens").query("SELECT * FROM everything", &[]).expect("reads");
    let stored = found.into_iter().map(|row| {
        let mut columns = row.columns();
        let Some(Value::Text(id)) = columns.remove("id") else { panic!("ids are text") };
        columns.remove("audience_key");
        (id, columns)
    });
    stored.collect()
}

/// What has several spellings comes back in one.
#[tokio::test]
async fn other_spellings_become_the_one_form() {
    let theatre = Theatre::open_with(POSTGRES, &["everything"], |_| {}).await;
    let mut alice = theatre.device("alice");
    let cases = [
        ("at", Value::from("2026-11-23 14:00:00.500+02"), Value::from("2026-11-23T12:00:00.5Z")),
        ("ref", Value::from("6BA7B810-9DAD-11D1-80B4-00C04FD430C8"), "6ba7b810-9dad-11d1-80b4-00c04fd430c8".into()),
        ("money", Value::Real(12.5), "12.50".into()),
        ("money", Value::Integer(12), "12.00".into()),
        ("double", Value::Integer(1), Value::Real(1.0)),
        ("big", Value::from("5"), Value::Integer(5)),
        ("yes", Value::Integer(1), Value::Bool(true)),
        ("doc", Value::Json("{\"b\":1,\"a\":2}".into()), Value::Json("{\"a\": 2, \"b\": 1}".into())),
        ("list", Value::from("{1, 2}"), "{1,2}".into()),
        ("blank", Value::from("ab  "), "ab".into()),
    ];
    let rows = cases.iter().enumerate().map(|(index, (column, written, _))| insert(index, one(column, written)));
    alice.sync(vec![alice.action(10, rows.collect())]).await;
    let (_, rows) = alice.take(&["project:p"]).await;
    let read: BTreeMap<&str, &Columns> = rows.iter().map(|row| (row.row_id.as_str(), &row.columns)).collect();
    for (index, (column, _, expected)) in cases.iter().enumerate() {
        assert_eq!(read[id_of(index).as_str()][*column], *expected, "{column}");
    }
}
