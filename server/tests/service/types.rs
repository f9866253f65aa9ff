//! TYP, SQ-06, U24: each type's values on whole devices and on the server, whatever the order of arrival and however
//! the database is set up.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use synchrotron_core::model::{Columns, Effect, Patch, Value};

use crate::app::{App, Schema};
use crate::fixture::{Device, Theatre, columns, patch};
use crate::forms::{POSTGRES, SQLITE, canonical, id_of, one};

const EVERYTHING: Schema = Schema { sql: SQLITE, tables: &["everything"] };
const TABLES: &[&str] = &["everything"];

/// What a session prints and reads otherwise than by default, of everything that a database may be set to.
const ODD_SETTINGS: &str = "DO $$ DECLARE setting text; BEGIN
    FOREACH setting IN ARRAY ARRAY['TimeZone = ''America/New_York''', 'DateStyle = ''SQL, DMY''',
        'IntervalStyle = ''sql_standard''', 'bytea_output = ''escape''', 'extra_float_digits = 0',
        'transform_null_equals = on', 'standard_conforming_strings = off'] LOOP
        EXECUTE format('ALTER DATABASE %I SET %s', current_database(), setting);
    END LOOP; END $$;";

/// A value as a device's SQLite holds it: a negative zero is a zero there.
fn held(value: &Value) -> Value {
    match value {
        Value::Real(zero) if *zero == 0.0 => Value::Real(0.0),
        other => other.clone(),
    }
}

async fn write(app: &App, statement: impl Fn(&str) -> String, value_of: impl Fn(&Value) -> Value) {
    let values = canonical().into_iter().enumerate();
    let statements =
        values.map(|(index, (column, value))| (statement(column), vec![value_of(&value), id_of(index).into()]));
    app.run_all(statements.collect()).await.expect("runs");
    app.sync().await;
}

async fn assert_holds(app: &App, value_of: impl Fn(&Value) -> Value) {
    app.sync().await;
    let rows = app.rows("SELECT * FROM everything").await;
    let by_id: BTreeMap<String, Columns> = rows
        .into_iter()
        .map(|mut row| {
            let Some(Value::Text(id)) = row.remove("id") else { panic!("ids are text") };
            row.remove("audience_key");
            (id, row)
        })
        .collect();
    assert_eq!(by_id.len(), canonical().len());
    for (index, (column, value)) in canonical().iter().enumerate() {
        assert!(by_id[&id_of(index)] == one(column, &held(&value_of(value))), "{column}: {}", value.kind());
    }
    app.assert_equal_to_the_server().await;
}

/// Device → Postgres → snapshot and log → other devices; then to null, and back.
async fn values_are_the_same_everywhere(theatre: Theatre) {
    let (author, reader) = (theatre.app("alice", EVERYTHING).await, theatre.app("bob", EVERYTHING).await);
    reader.sync().await;
    let insert =
        |column: &str| format!("INSERT INTO everything (\"{column}\", id, audience_key) VALUES (?, ?, 'project:p')");
    write(&author, insert, Value::clone).await;
    let first = bits(&theatre, 0).await;
    let update = |column: &str| format!("UPDATE everything SET \"{column}\" = ? WHERE id = ?");
    assert_holds(&author, Value::clone).await;
    assert_holds(&reader, Value::clone).await;
    assert_holds(&theatre.app("bob", EVERYTHING).await, Value::clone).await;
    write(&reader, update, |_| Value::Null).await;
    assert_holds(&author, |_| Value::Null).await;
    write(&author, update, Value::clone).await;
    assert_holds(&reader, Value::clone).await;
    assert_holds(&theatre.app("alice", EVERYTHING).await, Value::clone).await;
    let differ = columns_that_differ(&first, &bits(&theatre, 0).await);
    assert!(differ.is_empty(), "{differ:?} are other bits in Postgres");
}

#[tokio::test]
async fn typ_01_02_03_sq_06_a_value_is_the_same_everywhere() {
    values_are_the_same_everywhere(Theatre::open_with(POSTGRES, TABLES, |_| {}).await).await;
}

#[tokio::test]
async fn typ_01_02_03_sq_06_also_on_an_icu_database() {
    values_are_the_same_everywhere(Theatre::open_icu(POSTGRES, TABLES, |_| {}).await).await;
}

#[tokio::test]
async fn typ_01_02_03_sq_06_also_where_the_database_prints_otherwise() {
    let sql = format!("{POSTGRES}{ODD_SETTINGS}");
    values_are_the_same_everywhere(Theatre::open_with(&sql, TABLES, |_| {}).await).await;
}

/// SQLite turns NaN into NULL without a word; the engine refuses it with one, in the action.
#[tokio::test]
async fn typ_not_a_number_is_refused_where_it_is_written() {
    let theatre = Theatre::open_with(POSTGRES, TABLES, |_| {}).await;
    let app = theatre.app("alice", EVERYTHING).await;
    let insert = "INSERT INTO everything (id, audience_key, double) VALUES (?, 'project:p', ?)";
    let error = app.run(insert, &[id_of(0).into(), f64::NAN.into()]).await.expect_err("refused");
    assert!(error.to_string().contains("NaN"), "{error}");
    assert_eq!(app.count("everything").await, 0);
}

/// What others put into Postgres comes to devices as a text, and goes back as the number that it is not.
#[tokio::test]
async fn typ_not_a_number_of_the_server_is_a_text_on_devices() {
    let theatre = Theatre::open_with(POSTGRES, TABLES, |_| {}).await;
    let author = theatre.app("alice", EVERYTHING).await;
    let insert = "INSERT INTO everything (id, audience_key) VALUES (?, 'project:p')";
    author.run(insert, &[id_of(0).into()]).await.expect("runs");
    author.sync().await;
    theatre.execute("UPDATE everything SET single = 'NaN', double = 'NaN'").await;
    let app = theatre.app("bob", EVERYTHING).await;
    app.sync().await;
    let nan = columns([("single", "NaN".into()), ("double", "NaN".into())]);
    assert_eq!(app.rows("SELECT single, double FROM everything").await, [nan]);
    app.assert_equal_to_the_server().await;
    app.run("UPDATE everything SET double = 1, small = 1", &[]).await.expect("runs");
    app.run("UPDATE everything SET double = 'NaN', small = 2", &[]).await.expect("runs");
    app.sync().await;
    assert_eq!(theatre.scalar("SELECT double::text || small FROM everything").await.as_deref(), Some("NaN2"));
    app.assert_equal_to_the_server().await;
}

/// Each row's columns as Postgres sends them in binary, without ids: equal bits are equal values.
async fn bits(theatre: &Theatre, from: usize) -> Vec<String> {
    let names: std::collections::BTreeSet<&str> = canonical().into_iter().map(|(name, _)| name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let sql = format!(
        "SELECT string_agg(encode(record_send(ROW({})), 'hex'), ',' ORDER BY id) FROM everything WHERE id >= '{}' AND id < '{}'",
        names.join(", "),
        id_of(from),
        id_of(from + ROWS_APART)
    );
    theatre.scalar(&sql).await.unwrap_or_default().split(',').map(str::to_owned).collect()
}

fn columns_that_differ(one: &[String], other: &[String]) -> Vec<&'static str> {
    assert_eq!(one.len(), other.len());
    let differ = canonical().into_iter().zip(one.iter().zip(other)).filter(|(_, (one, other))| one != other);
    differ.map(|((column, _), _)| column).collect()
}

/// Room for one set of rows, by their ids.
const ROWS_APART: usize = 1_000;
const ORDERS: usize = 4;

/// The effects of one history, by time: set, changed, set to null, gone, there again and empty, set again.
fn history(from: usize) -> Vec<Vec<Patch>> {
    let values = small();
    let of = |effect: &dyn Fn(usize, &'static str, &Value) -> Effect| -> Vec<Patch> {
        let rows = values.iter().enumerate();
        rows.map(|(index, (column, value))| {
            patch("everything", &id_of(from + index), "project:p", effect(index, column, value))
        })
        .collect()
    };
    let set = |column: &'static str, value: &Value| Effect::Update(columns([(column, value.clone())]));
    vec![
        of(&|_, column, value| Effect::Insert(one(column, value))),
        of(&|_, column, value| set(column, &another(column, value))),
        of(&|_, column, _| set(column, &Value::Null)),
        of(&|_, _, _| Effect::Delete),
        of(&|_, column, _| Effect::Insert(one(column, &Value::Null))),
        of(&|_, column, value| set(column, value)),
    ]
}

/// All but the large one: a history has it many times.
fn small() -> Vec<(&'static str, Value)> {
    canonical().into_iter().filter(|(_, value)| !matches!(value, Value::Text(text) if text.len() > 10_000)).collect()
}

/// A different value of the same column, if there is one.
fn another(column: &str, value: &Value) -> Value {
    let others = canonical().into_iter().filter(|(name, other)| *name == column && other != value);
    others.map(|(_, other)| other).next_back().unwrap_or(Value::Null)
}

async fn assert_rows(device: &Device, from: usize, value_of: impl Fn(&Value) -> Value, doing: &str) {
    let (_, rows) = device.take(&["project:p"]).await;
    let read: BTreeMap<&str, &Columns> = rows.iter().map(|row| (row.row_id.as_str(), &row.columns)).collect();
    for (index, (column, value)) in small().iter().enumerate() {
        assert!(*read[id_of(from + index).as_str()] == one(column, &value_of(value)), "{doing}: {column}");
    }
}

/// Whatever order actions arrive in, late ones folded beneath others, and whatever is taken back and put there again: the
/// rows are those of the history in its order, to the last bit.
async fn late_folds_are_exact(theatre: Theatre) {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(24);
    let mut rng = StdRng::seed_from_u64(seed);
    let mut alice = theatre.device("alice");
    let mut in_order = Vec::new();
    for round in 0..ORDERS {
        let from = round * ROWS_APART;
        let at = |index: usize| i64::try_from(from + index * 10).expect("small") + 10;
        let records = history(from).into_iter().enumerate().map(|(index, rows)| alice.action(at(index), rows));
        let mut records: Vec<_> = records.collect();
        let last = records[5].clone();
        match round {
            0 => {}
            // Nobody changes a row before there is one.
            1 => records[1..].reverse(),
            _ => records[1..].shuffle(&mut rng),
        }
        for record in records {
            alice.sync(vec![record]).await;
        }
        let doing = format!("order {round}; again: SEED={seed} cargo test -p synchrotron-server --test service u24");
        assert_rows(&alice, from, Value::clone, &doing).await;
        let whole = bits(&theatre, from).await;
        let amends = alice.position(&last);
        let taken_back = last.rows.iter().map(|row| Patch { effect: Effect::Nothing, ..row.clone() }).collect();
        alice.sync(vec![alice.correction(amends, taken_back)]).await;
        assert_rows(&alice, from, |_| Value::Null, &format!("{doing}, taken back")).await;
        alice.sync(vec![alice.correction(amends, last.rows.clone())]).await;
        assert!(bits(&theatre, from).await == whole, "{doing}: other bits after taking back and putting there again");
        if round == 0 {
            in_order = whole;
        } else {
            assert!(in_order == whole, "{doing}: other bits than in order");
        }
    }
}

#[tokio::test]
async fn u24_late_folds_are_exact_for_every_type() {
    late_folds_are_exact(Theatre::open_with(POSTGRES, TABLES, |_| {}).await).await;
}

#[tokio::test]
async fn u24_late_folds_are_exact_on_an_icu_database() {
    late_folds_are_exact(Theatre::open_icu(POSTGRES, TABLES, |_| {}).await).await;
}
