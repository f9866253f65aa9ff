//! What the app's own triggers and foreign keys write beneath an upload reaches devices, and nothing is told twice.

use synchrotron_core::model::{Effect, Value};

use super::{now_ms, told};
use crate::fixture::{Theatre, columns, hold, note, patch, remove, seat};

#[tokio::test]
async fn uploads_alone_stage_nothing() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), note("n", "alice")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("bob")), remove("A2")])]).await;
    let late = alice.action(20, vec![hold("A1", Some("alice"))]);
    alice.sync(vec![late]).await;
    let at = bob.position(&bob.action(40, vec![]));
    let corrected = bob.action(40, vec![hold("A1", Some("zoe"))]);
    let at = synchrotron_core::model::ReplayKey { action_id: corrected.id, ..at };
    bob.sync(vec![corrected]).await;
    bob.sync(vec![bob.correction(at, vec![hold("A1", Some("carol"))])]).await;
    assert_eq!(theatre.count("synchrotron.staged_writes").await, 0);
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// A cascade's rows are written at the depth of the statement above, so that depth alone does not tell them apart.
#[tokio::test]
async fn cascades_beneath_an_upload_reach_others() {
    let sql = "CREATE TABLE rows (id text PRIMARY KEY, audience_key text, seat text REFERENCES seats ON DELETE CASCADE, \
        beside text REFERENCES seats ON DELETE SET NULL, above text REFERENCES rows ON DELETE CASCADE); \
        GRANT ALL ON rows TO synchrotron_user";
    let theatre = Theatre::open_with(sql, &["rows"], |_| {}).await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    theatre
        .execute(
            "INSERT INTO rows VALUES ('r1', 'project:p', 'A1', 'A2', NULL), ('r2', 'project:p', NULL, 'A1', NULL), \
             ('r3', 'project:p', NULL, NULL, 'r1'), ('r4', 'project:q', 'A1', NULL, NULL), ('r5', 'project:p', 'A2', 'A1', 'r4')",
        )
        .await;
    theatre.pick_up().await;
    let mut bob = theatre.device("bob");
    bob.catch_up().await;
    // Alice's device removes r1 itself; r3, r4 and r5 go with what goes, and r2 loses its neighbour.
    let gone = patch("rows", "r1", "project:p", Effect::Delete);
    alice.sync(vec![alice.action(now_ms() + 1_000, vec![remove("A1"), gone])]).await;
    theatre.pick_up().await;
    let mut heard = told(&bob.catch_up().await);
    heard.sort();
    assert_eq!(heard, ["r2 UPDATE beside", "r3 DELETE", "r4 DELETE", "r5 DELETE"]);
    assert_eq!(theatre.assert_in_step(&["alice", "bob"]).await.len(), 2);
}

/// The row's fold alone would bring it back.
#[tokio::test]
async fn a_late_upload_does_not_bring_back_what_a_cascade_removed() {
    let sql = "CREATE TABLE rows (id text PRIMARY KEY, audience_key text, word text, \
        seat text REFERENCES seats ON DELETE CASCADE); GRANT ALL ON rows TO synchrotron_user";
    let theatre = Theatre::open_with(sql, &["rows"], |_| {}).await;
    let mut alice = theatre.device("alice");
    let row = columns([("seat", "A1".into()), ("word", "w".into())]);
    let row = patch("rows", "r", "project:p", Effect::Insert(row));
    alice.sync(vec![alice.action(10, vec![seat("A1"), row])]).await;
    let say = |word: &str| patch("rows", "r", "project:p", Effect::Update(columns([("word", word.into())])));
    alice.sync(vec![alice.action(30, vec![patch("rows", "r", "project:p", Effect::Update(columns([])))])]).await;
    alice.sync(vec![alice.action(40, vec![remove("A1")])]).await;
    alice.sync(vec![alice.action(20, vec![say("late")])]).await;
    assert_eq!(theatre.count("rows").await, 0);
    theatre.pick_up().await;
    assert!(theatre.assert_in_step(&["alice", "bob"]).await.is_empty());
}

const COUNTED: &str = "CREATE TABLE totals (id text PRIMARY KEY, audience_key text, seats int); \
    INSERT INTO totals VALUES ('p', 'project:p', 0); GRANT ALL ON totals TO synchrotron_user; \
    CREATE FUNCTION count_seats() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
        UPDATE totals SET seats = (SELECT count(*) FROM seats WHERE audience_key = 'project:p') WHERE id = 'p'; \
        RETURN NULL; END $$; \
    CREATE TRIGGER counts AFTER INSERT OR DELETE ON seats FOR EACH ROW EXECUTE FUNCTION count_seats()";

#[tokio::test]
async fn what_an_after_trigger_writes_reaches_everyone_once() {
    let theatre = Theatre::open_with(COUNTED, &["totals"], |_| {}).await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    theatre.pick_up().await;
    assert_eq!(told(&bob.catch_up().await), ["p UPDATE seats"]);
    assert_eq!(told(&alice.catch_up().await), ["p UPDATE seats"]);
    // A device that counts by itself has said already what the trigger does.
    let count = patch("totals", "p", "project:p", Effect::Update(columns([("seats", Value::Integer(3))])));
    alice.sync(vec![alice.action(now_ms() + 1_000, vec![seat("A3"), count])]).await;
    assert_eq!(theatre.pick_up().await, 1);
    assert_eq!(told(&bob.catch_up().await), [""; 0]);
    assert_eq!(theatre.scalar("SELECT seats::text FROM totals").await.as_deref(), Some("3"));
}

const NORMALIZED: &str = "CREATE FUNCTION normalize_seat() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        NEW.label := upper(NEW.label); \
        IF TG_OP = 'UPDATE' AND NEW.holder = 'nobody' THEN NEW.holder := OLD.holder; END IF; \
        RETURN NEW; END $$; \
    CREATE TRIGGER normalizes BEFORE INSERT OR UPDATE ON seats FOR EACH ROW EXECUTE FUNCTION normalize_seat()";

#[tokio::test]
async fn what_a_before_trigger_makes_of_a_row_reaches_its_author_too() {
    let theatre = Theatre::open_with(NORMALIZED, &[], |_| {}).await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let made = patch(
        "seats",
        "A1",
        "project:p",
        Effect::Insert(columns([("label", "front row".into()), ("holder", "alice".into())])),
    );
    alice.sync(vec![alice.action(10, vec![made])]).await;
    theatre.pick_up().await;
    assert_eq!(told(&alice.catch_up().await), ["A1 UPDATE label"]);
    assert_eq!(told(&bob.catch_up().await), ["A1 UPDATE label"]);
    // The trigger refuses this holder by keeping the old one: nothing has changed, and so the device must be told.
    alice.sync(vec![alice.action(now_ms() + 1_000, vec![hold("A1", Some("nobody"))])]).await;
    theatre.pick_up().await;
    assert_eq!(told(&alice.catch_up().await), ["A1 UPDATE holder"]);
    // It leaves this one as it is: nothing is told.
    alice.sync(vec![alice.action(now_ms() + 2_000, vec![hold("A1", Some("zoe"))])]).await;
    assert_eq!(theatre.pick_up().await, 1);
    assert_eq!(told(&bob.catch_up().await), ["A1 UPDATE holder"], "of the one before");
    theatre.execute("UPDATE seats SET label = 'back row'").await;
    theatre.pick_up().await;
    let rows = theatre.assert_in_step(&["alice", "bob"]).await;
    let row = rows.values().next().expect("the seat");
    assert_eq!((&row["label"], &row["holder"]), (&"BACK ROW".into(), &"zoe".into()));
}
