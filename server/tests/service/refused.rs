//! What Postgres refuses in words that could be the server's trouble is the record's fault all the same, and is told: a
//! device that is asked to try again for ever never gets on.

use synchrotron_core::model::{Effect, Patch, Value};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::fixture::{Theatre, columns, hold, patch, rejected, seat};

async fn assert_refused(theatre: &Theatre, row: Patch, expected: &str) {
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.catch_up().await;
    bob.catch_up().await;
    let refused = alice.batch(vec![alice.action(10, vec![row])]).await;
    let innocent = bob.batch(vec![bob.action(10, vec![])]).await;
    let (refused, innocent) = tokio::join!(alice.send(&refused), bob.send(&innocent));
    let (kind, reason) = rejected(refused);
    assert_eq!(kind, RejectionKind::Constraint, "{reason}");
    assert!(reason.contains(expected) && !reason.contains("secret"), "{reason}");
    assert!(matches!(innocent, Outcome::Accepted { .. }), "{innocent:?}");
}

#[tokio::test]
async fn a_text_that_its_type_cannot_read() {
    let sql = "CREATE TABLE read (id text PRIMARY KEY, audience_key text, path jsonpath, search tsquery, class regclass, \
        kind regtype, call regprocedure); GRANT ALL ON read TO synchrotron_user";
    let theatre = Theatre::open_with(sql, &["read"], |_| {}).await;
    for (column, text, expected) in [
        ("path", "$.secret[", "42601"),
        ("search", "secret &", "42601"),
        ("class", "secret", "42P01"),
        ("kind", "secret", "42704"),
        ("call", "secret()", "42883"),
    ] {
        let row = patch("read", "r", "project:p", Effect::Insert(columns([(column, text.into())])));
        assert_refused(&theatre, row, expected).await;
    }
}

#[tokio::test]
async fn a_row_that_a_trigger_keeps_out() {
    let sql = "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
        CREATE TRIGGER keeps_out BEFORE INSERT ON seats FOR EACH ROW WHEN (NEW.label = 'A1') EXECUTE FUNCTION keep_out()";
    let theatre = Theatre::open_with(sql, &[], |_| {}).await;
    assert_refused(&theatre, seat("A1"), "keeps the row out").await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(20, vec![seat("A2")])]).await;
}

#[tokio::test]
async fn what_a_trigger_raises_in_a_class_of_its_own() {
    let sql = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            RAISE EXCEPTION 'a secret' USING ERRCODE = NEW.holder; END $$; \
        CREATE TRIGGER refuses BEFORE UPDATE ON seats FOR EACH ROW EXECUTE FUNCTION refuse()";
    let theatre = Theatre::open_with(sql, &[], |_| {}).await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(5, vec![seat("A1")])]).await;
    for code in ["PT409", "45000", "P0001"] {
        assert_refused(&theatre, hold("A1", Some(code)), code).await;
    }
    alice.catch_up().await;
    let trouble = alice.upload(vec![alice.action(10, vec![hold("A1", Some("40001"))])]).await;
    assert!(matches!(trouble, Outcome::Retry { .. }), "the app wants it tried again: {trouble:?}");
}

/// A constraint of a table that is not tracked, which a trigger and a cascade write to.
#[tokio::test]
async fn what_only_a_commit_would_find() {
    let sql = "CREATE TABLE ledger (seat text REFERENCES seats ON DELETE CASCADE, amount int); \
        GRANT ALL ON ledger TO synchrotron_user; \
        CREATE FUNCTION enter() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            INSERT INTO ledger VALUES (NEW.id, length(NEW.label)); RETURN NULL; END $$; \
        CREATE TRIGGER enters AFTER INSERT ON seats FOR EACH ROW EXECUTE FUNCTION enter(); \
        CREATE FUNCTION balance() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF (SELECT sum(amount) FROM ledger) % 2 = 1 THEN RAISE check_violation; END IF; RETURN NULL; END $$; \
        CREATE CONSTRAINT TRIGGER balances AFTER INSERT OR DELETE ON ledger DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW EXECUTE FUNCTION balance()";
    let theatre = Theatre::open_with(sql, &[], |_| {}).await;
    assert_refused(&theatre, seat("odd"), "23514").await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(20, vec![seat("even"), seat("A1")])]).await;
    let mut changed = seat("A1");
    changed.effect = Effect::Update(columns([("label", Value::Null)]));
    alice.sync(vec![alice.action(30, vec![changed])]).await;
}
