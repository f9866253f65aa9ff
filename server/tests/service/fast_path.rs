//! An upload that comes alone takes one statement where all is well, and is judged as ever where it is not.

use synchrotron_core::model::{Effect, Patch, Value};
use synchrotron_core::wire::{Outcome, RejectionKind};
use synchrotron_server::settings::HeadGate;

use crate::fixture::{Device, Theatre, accepted, columns, hold, note, patch, principal, rejected, remove, seat};
use crate::rows::with_parts;

/// Notes with which statement each row came.
const NOTING: &str = "CREATE TABLE said (number bigint GENERATED ALWAYS AS IDENTITY, query text);
    CREATE FUNCTION note_query() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
        $$ BEGIN INSERT INTO said (query) VALUES (current_query()); RETURN NULL; END $$;
    CREATE TRIGGER noting AFTER INSERT OR UPDATE OR DELETE ON seats FOR EACH ROW EXECUTE FUNCTION note_query();
    CREATE TRIGGER noting AFTER INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION note_query();
    INSERT INTO seats VALUES ('old', 'older than the log', NULL, 'project:p')";

/// A stage with a seat, and the device that brought it.
async fn seated() -> (Theatre, Device) {
    let theatre = Theatre::open_with(NOTING, &[], |_| {}).await;
    theatre.execute("TRUNCATE said").await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    assert_eq!(fast_rows(&theatre).await, 1);
    (theatre, alice)
}

/// How many rows came by other statements than the one that does all, since this was asked last.
async fn slow_rows(theatre: &Theatre) -> i64 {
    let slow = theatre.count("said WHERE query NOT LIKE '/* ingest.take */%'").await;
    theatre.execute("TRUNCATE said").await;
    slow
}

async fn fast_rows(theatre: &Theatre) -> i64 {
    let fast = theatre.count("said WHERE query LIKE '/* ingest.take */%'").await;
    assert_eq!(slow_rows(theatre).await, 0);
    fast
}

#[tokio::test]
async fn what_devices_mostly_send_takes_one_statement() {
    let (theatre, mut alice) = seated().await;
    for (at, rows) in [
        (20, vec![seat("A2")]),
        (30, vec![hold("A1", Some("alice"))]),
        (40, vec![hold("A1", None), hold("A2", Some("alice")), note("n", "alice")]),
        (50, vec![remove("A2")]),
        (60, vec![seat("A2")]),
        (70, vec![seat("A3"), hold("A3", Some("alice")), remove("A3"), seat("A3")]),
    ] {
        // Every 64th leaves images, and is done otherwise.
        theatre.execute("SELECT setval('synchrotron.server_ingest_ids', (nextval('synchrotron.server_ingest_ids') / 64 + 1) * 64)").await;
        let count = i64::try_from(rows.len()).expect("few");
        alice.sync(vec![alice.action(at, rows)]).await;
        assert_eq!(fast_rows(&theatre).await, count, "at {at}");
    }
    let many = (0..100).map(|n| alice.action(80 + n, vec![seat(&format!("B{n}"))])).collect();
    alice.sync(many).await;
    assert_eq!(fast_rows(&theatre).await, 100);
    // Before its own slice came back to it, and without any rows.
    for at in [200, 210] {
        accepted(alice.upload(vec![alice.action(at, vec![])]).await);
        accepted(alice.upload(vec![alice.action(at + 1, vec![hold("A1", Some(&at.to_string()))])]).await);
    }
    assert_eq!(fast_rows(&theatre).await, 2);
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("210"));
    assert_eq!(
        theatre
            .scalar("SELECT string_agg(id, ',' ORDER BY id COLLATE \"C\") FROM seats WHERE id < 'B'")
            .await
            .as_deref(),
        Some("A1,A2,A3")
    );
}

#[tokio::test]
async fn what_is_to_be_judged_is_judged_as_ever() {
    let (theatre, mut alice) = seated().await;
    let mut bob = theatre.device("bob");
    bob.catch_up().await;
    // Late, of a row that is older than the log, and a correction.
    let edited = alice.action(30, vec![hold("A1", Some("second"))]);
    let amended = alice.position(&edited);
    alice.sync(vec![edited]).await;
    assert_eq!(fast_rows(&theatre).await, 1);
    alice.sync(vec![alice.action(20, vec![hold("A1", Some("first"))])]).await;
    alice.sync(vec![alice.action(40, vec![hold("old", Some("alice"))])]).await;
    alice.sync(vec![alice.correction(amended, vec![hold("A1", Some("corrected"))])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("corrected"));
    assert!(slow_rows(&theatre).await >= 2);
    assert_eq!(theatre.count("synchrotron.row_images WHERE row_id = 'old'").await, 1, "what it was is kept");
    // Behind, and then in step.
    assert!(matches!(bob.upload(vec![bob.action(50, vec![hold("A1", None)])]).await, Outcome::BehindHead { .. }));
    bob.catch_up().await;
    let batch = bob.batch(vec![bob.action(50, vec![hold("A1", None)])]).await;
    theatre.execute(&format!("DELETE FROM synchrotron.clients WHERE client_id = '{}'", bob.client_id)).await;
    accepted(bob.send(&batch).await);
    assert_eq!(slow_rows(&theatre).await, 1, "it is new");
    // Twice.
    alice.catch_up().await;
    let batch = alice.batch(vec![alice.action(60, vec![hold("A1", Some("once"))])]).await;
    let first = accepted(alice.send(&batch).await);
    assert_eq!(fast_rows(&theatre).await, 1);
    bob.catch_up().await;
    bob.sync(vec![bob.action(70, vec![hold("A1", Some("bob"))])]).await;
    assert_eq!(accepted(alice.send(&batch).await), first);
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("bob"));
    // A device that was away for days is noted to be here again.
    alice.catch_up().await;
    let batch = alice.batch(vec![alice.action(80, vec![hold("A1", Some("alice"))])]).await;
    theatre.execute("UPDATE synchrotron.clients SET used_at = now() - interval '2 days'; TRUNCATE said").await;
    accepted(alice.send(&batch).await);
    assert_eq!(slow_rows(&theatre).await, 1);
    let away =
        format!("synchrotron.clients WHERE client_id = '{}' AND used_at < now() - interval '1 day'", alice.client_id);
    assert_eq!(theatre.count(&away).await, 0);
}

/// Refused, and the same again when it comes again; nothing is left of it, as of what is not taken there.
#[tokio::test]
async fn what_fails_is_told_as_ever_and_leaves_nothing() {
    let (theatre, alice) = seated().await;
    let logged = async || theatre.count("synchrotron.action_records").await + theatre.count("synchrotron.outbox").await;
    let before = logged().await;
    let foreign = patch("seats", "x", "project:q", Effect::Insert(columns([("label", Value::Null)])));
    let mislabelled = patch("notes", "x", "user:alice", Effect::Insert(columns([("owner", "bob".into())])));
    // Policies may be laxer than memberships.
    theatre.execute("ALTER TABLE seats ADD CONSTRAINT held_well CHECK (holder <> 'nobody')").await;
    theatre.execute("CREATE POLICY lax ON seats USING (true)").await;
    let cases: [(Vec<Patch>, RejectionKind); 5] = [
        (vec![foreign], RejectionKind::Denied),
        (vec![note("x", "bob")], RejectionKind::Denied),
        (vec![mislabelled], RejectionKind::Denied),
        (vec![seat("A2"), hold("A1", Some("nobody"))], RejectionKind::Constraint),
        (vec![seat("A2"), patch("seats", "A1", "project:a", Effect::Delete)], RejectionKind::AudienceMismatch),
    ];
    for (at, (rows, kind)) in (20..).zip(cases) {
        let batch = alice.batch(vec![alice.action(at, rows)]).await;
        let outcome = alice.send(&batch).await;
        assert_eq!(rejected(outcome.clone()).0, kind, "at {at}");
        assert_eq!(alice.send(&batch).await, outcome, "at {at}");
        assert_eq!(
            (logged().await, theatre.count("seats").await, theatre.count("notes").await),
            (before, 2, 0),
            "at {at}"
        );
        let unfounded = "synchrotron.audience_heads WHERE audience_key IN ('project:q', 'user:bob')";
        assert_eq!(theatre.count(unfounded).await, 0, "at {at}");
    }
    // What was refused stays so, also when nothing is wrong with it any more.
    let batch = alice.batch(vec![alice.action(30, vec![hold("A1", Some("nobody"))])]).await;
    let refused = alice.send(&batch).await;
    theatre.execute("ALTER TABLE seats DROP CONSTRAINT held_well").await;
    assert_eq!((rejected(refused.clone()).0, alice.send(&batch).await), (RejectionKind::Constraint, refused));
    // Another's device, and another history.
    let batch = alice.batch(vec![alice.action(40, vec![seat("A2")])]).await;
    assert!(matches!(theatre.service.upload(&principal("bob"), batch.clone()).await, Outcome::Refused(_)));
    theatre.execute("SELECT synchrotron.begin_epoch()").await;
    assert!(matches!(alice.send(&batch).await, Outcome::EpochChanged { .. }));
    assert_eq!(theatre.count("seats").await, 2);
}

/// Postgres asks them when the statement is done and its rows are on their way.
#[tokio::test]
async fn constraints_that_wait_for_the_commit_are_asked() {
    let theatre = with_parts().await;
    theatre.execute(NOTING).await;
    theatre.execute("TRUNCATE said").await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    let part = |whole: &str| patch("parts", whole, "project:p", Effect::Insert(columns([("whole", whole.into())])));
    let (kind, reason) = rejected(alice.upload(vec![alice.action(20, vec![part("none")])]).await);
    assert_eq!((kind, reason.contains("23503")), (RejectionKind::Constraint, true), "{reason}");
    alice.sync(vec![alice.action(30, vec![part("A2"), seat("A2")])]).await;
    assert_eq!((theatre.count("parts").await, fast_rows(&theatre).await), (1, 2));
}

/// A long history is folded quickly, whatever brought it.
#[tokio::test]
async fn rows_of_single_actions_leave_images_too() {
    let (theatre, mut alice) = seated().await;
    for at in 20..220 {
        alice.sync(vec![alice.action(at, vec![hold("A1", Some(&at.to_string()))])]).await;
    }
    let images = theatre.count("synchrotron.row_images WHERE row_id = 'A1'").await;
    assert!((2..=6).contains(&images), "{images} images of 200 effects");
    assert_eq!(slow_rows(&theatre).await, images);
}

/// The gate that looks at what is written only.
#[tokio::test]
async fn an_audience_that_is_not_written_holds_nobody_back_there() {
    let theatre = Theatre::open_with(NOTING, &[], |settings| settings.head_gate = HeadGate::Touched).await;
    theatre.execute("TRUNCATE said").await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    for device in [&mut alice, &mut bob] {
        let user = device.principal.user_id.clone();
        device.sync(vec![device.action(10, vec![note(&format!("of {user}"), user.as_str())])]).await;
    }
    alice.sync(vec![alice.action(20, vec![seat("A1")])]).await;
    assert_eq!(fast_rows(&theatre).await, 3);
    // Bob knows nothing of the seat.
    let both = vec![note("n", "bob"), seat("A2")];
    assert!(matches!(bob.upload(vec![bob.action(30, both)]).await, Outcome::BehindHead { .. }));
    let moved = patch("notes", "of bob", "user:bob", Effect::Update(columns([("body", "new".into())])));
    accepted(bob.upload(vec![bob.action(40, vec![moved])]).await);
    assert_eq!(theatre.scalar("SELECT body FROM notes WHERE id = 'of bob'").await.as_deref(), Some("new"));
    assert_eq!(fast_rows(&theatre).await, 1);
}
