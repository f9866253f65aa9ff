//! Values and names on their way into Postgres.

use synchrotron_core::model::{Effect, Value};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::fixture::{Theatre, audience, columns, hold, patch, rejected, seat};

const EVERYTHING: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'happy');
    CREATE TABLE everything (id uuid PRIMARY KEY, audience_key text NOT NULL, yes boolean, small smallint, big bigint,
        single real, double double precision, exact numeric(30, 10), words text, short varchar(3), raw bytea, doc jsonb,
        plain_doc json, ref uuid, at timestamptz, day date, span interval, list int[], mood mood,
        twice int GENERATED ALWAYS AS (small + small::int) STORED, numbered bigint GENERATED ALWAYS AS IDENTITY,
        untouched text DEFAULT 'default');
    GRANT SELECT, INSERT, UPDATE, DELETE ON everything TO synchrotron_user;";
const ID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn everything(effect: Effect) -> synchrotron_core::model::Patch {
    patch("everything", ID, "project:p", effect)
}

#[tokio::test]
async fn every_type_takes_its_values_exactly() {
    let theatre = Theatre::open_with(EVERYTHING, &["everything"], |_| {}).await;
    let alice = theatre.device("alice");
    let cases: [(&str, Value, &str); 24] = [
        ("yes", Value::Bool(true), "true"),
        ("small", Value::Integer(-7), "-7"),
        ("big", Value::Integer(i64::MAX), "9223372036854775807"),
        ("double", Value::Text("NaN".into()), "NaN"),
        ("double", Value::Real(f64::INFINITY), "Infinity"),
        ("double", Value::Real(-0.0), "-0"),
        ("double", Value::Real(0.1 + 0.2), "0.30000000000000004"),
        ("double", Value::Real(5e-324), "5e-324"),
        ("single", Value::Real(0.5), "0.5"),
        ("exact", Value::Text("12345678901234567890.0123456789".into()), "12345678901234567890.0123456789"),
        ("words", Value::Text(String::new()), ""),
        ("words", Value::Text("x".repeat(1 << 20)), "1048576"),
        ("words", Value::Text("quote ' \" \\ 🎭\n".into()), "quote ' \" \\ 🎭\n"),
        ("short", Value::Text("abc".into()), "abc"),
        ("raw", Value::Bytes(vec![0, 255, 92]), "\\x00ff5c"),
        ("doc", Value::Json(r#"{"a": [{"b": [[1]]}]}"#.into()), r#"{"a": [{"b": [[1]]}]}"#),
        ("plain_doc", Value::Json("[1,  2]".into()), "[1,  2]"),
        ("ref", Value::Text(ID.into()), ID),
        ("at", Value::Text("2026-11-23T12:00:00.123456Z".into()), "2026-11-23 12:00:00.123456"),
        ("day", Value::Text("2026-02-28".into()), "2026-02-28"),
        ("span", Value::Text("1 day 02:00:00".into()), "1 day 02:00:00"),
        ("list", Value::Text("{1,NULL,3}".into()), "{1,NULL,3}"),
        ("mood", Value::Text("happy".into()), "happy"),
        ("big", Value::Integer((1 << 53) + 1), "9007199254740993"),
    ];
    for (index, (column, value, expected)) in cases.into_iter().enumerate() {
        let at = i64::try_from(index).expect("small") * 10;
        let shown = format!("{column} {}", value.kind());
        let row = everything(Effect::Insert(columns([(column, value)])));
        let outcome = alice.upload(vec![alice.action(at, vec![row])]).await;
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{shown}, {expected}: {outcome:?}");
        let expression = match column {
            "at" => "at AT TIME ZONE 'UTC'".to_owned(),
            _ if expected == "1048576" => format!("length({column})"),
            _ => column.to_owned(),
        };
        let stored = theatre.scalar(&format!("SELECT ({expression})::text FROM everything")).await;
        assert_eq!(stored.as_deref(), Some(expected), "{column}");
    }
    let untouched = theatre.scalar("SELECT untouched FROM everything").await;
    assert_eq!(untouched.as_deref(), Some("default"));
}

#[tokio::test]
async fn a_value_that_does_not_fit_is_refused_without_being_quoted() {
    let theatre = Theatre::open_with(EVERYTHING, &["everything"], |_| {}).await;
    let alice = theatre.device("alice");
    let cases = [
        ("small", Value::Integer(70_000), "SQLSTATE 22003"),
        ("big", Value::Real(1.5), "SQLSTATE 22P02"),
        ("words", Value::Text("secret\0".into()), "SQLSTATE 22021"),
        ("words", Value::Bytes(vec![1]), "takes no bytes"),
        ("short", Value::Text("secret".into()), "SQLSTATE 22001"),
        ("raw", Value::Text("secret".into()), "takes no text"),
        ("doc", Value::Json("{secret".into()), "SQLSTATE 22P02"),
        ("ref", Value::Text("secret".into()), "SQLSTATE 22P02"),
        ("day", Value::Text("2026-02-30".into()), "SQLSTATE 22008"),
        ("mood", Value::Text("secret".into()), "SQLSTATE 22P02"),
        ("yes", Value::Integer(2), "takes no integer"),
        ("double", Value::Real(f64::NAN), "takes no real"),
    ];
    for (column, value, expected) in cases {
        let row = everything(Effect::Insert(columns([(column, value)])));
        let (kind, reason) = rejected(alice.upload(vec![alice.action(10, vec![row])]).await);
        assert_eq!(kind, RejectionKind::Constraint, "{column}");
        assert!(reason.contains(expected) && !reason.contains("secret"), "{column}: {reason}");
    }
    for column in ["twice", "numbered"] {
        let row = everything(Effect::Insert(columns([(column, Value::Integer(1))])));
        assert_eq!(rejected(alice.upload(vec![alice.action(10, vec![row])]).await).0, RejectionKind::UnknownColumn);
    }
    let mut shouting = everything(Effect::Delete);
    shouting.row_id = synchrotron_core::model::RowId::new(ID.to_uppercase()).expect("ok");
    assert_eq!(rejected(alice.upload(vec![alice.action(10, vec![shouting])]).await).0, RejectionKind::Malformed);
    assert_eq!(theatre.count("everything").await, 0);
}

#[tokio::test]
async fn nulls_of_an_update_are_written() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), hold("A1", Some("alice"))])]).await;
    alice.sync(vec![alice.action(20, vec![hold("A1", None)])]).await;
    assert_eq!(theatre.holder("A1").await, None);
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("A1"));
}

#[tokio::test]
async fn a_constraint_is_named() {
    let theatre = Theatre::open_with("ALTER TABLE seats ADD CONSTRAINT one_each UNIQUE (holder)", &[], |_| {}).await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), hold("A1", Some("mallory"))])]).await;
    let (kind, reason) = rejected(alice.upload(vec![alice.action(20, vec![hold("A2", Some("mallory"))])]).await);
    assert_eq!(kind, RejectionKind::Constraint);
    assert_eq!(reason, "row 0 (table seats): SQLSTATE 23505, table seats, constraint one_each");
}

/// With parts of seats, whose constraint waits for the commit.
pub(crate) async fn with_parts() -> Theatre {
    let parts = "CREATE TABLE parts (id text PRIMARY KEY, audience_key text,
            whole text REFERENCES seats (id) DEFERRABLE INITIALLY DEFERRED);
         GRANT ALL ON parts TO synchrotron_user";
    Theatre::open_with(parts, &["parts"], |_| {}).await
}

#[tokio::test]
async fn deferred_constraints_hold_when_an_action_ends() {
    let theatre = with_parts().await;
    let alice = theatre.device("alice");
    let part = patch("parts", "x", "project:p", Effect::Insert(columns([("whole", "A1".into())])));
    let outcome = alice.upload(vec![alice.action(10, vec![part.clone()]), alice.action(20, vec![seat("A1")])]).await;
    let (kind, reason) = rejected(outcome);
    assert_eq!((kind, reason.contains("23503")), (RejectionKind::Constraint, true), "{reason}");
    let outcome = alice.upload(vec![alice.action(10, vec![part, seat("A1")])]).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

#[tokio::test]
async fn awkward_names_are_names() {
    let theatre = Theatre::open_with(
        r#"CREATE TABLE "we ""quote"" it; --" (id text PRIMARY KEY, audience_key text, "a ""b"" $1 ;" text);
           GRANT ALL ON "we ""quote"" it; --" TO synchrotron_user;
           CREATE OR REPLACE VIEW synchrotron.user_audiences AS
             SELECT 'alice'::text AS user_id, unnest(ARRAY['a.b', '*', '>', 'with space', E'new\nline', '🎭', '''"', '{x,y}']) AS audience_key"#,
        &[r#"we "quote" it; --"#],
        |_| {},
    )
    .await;
    let mut alice = theatre.device("alice");
    let keys = ["a.b", "*", ">", "with space", "new\nline", "🎭", "'\"", "{x,y}"];
    let rows = keys.iter().map(|key| {
        let values = columns([("a \"b\" $1 ;", (*key).into())]);
        patch("we \"quote\" it; --", &format!("row of {key}"), key, Effect::Insert(values))
    });
    alice.sync(vec![alice.action(10, rows.collect())]).await;
    let same = r#""we ""quote"" it; --" WHERE audience_key = "a ""b"" $1 ;""#;
    assert_eq!(theatre.count(same).await, 8);
    let got = alice.catch_up().await;
    assert_eq!(got[0].rows.len(), 8);
    assert!(keys.iter().all(|key| alice.cursors[&audience(key)].get() > 0));
    assert_eq!(theatre.service.unpublished_slices(20).await.expect("slices").len(), 8);
}
