//! Uploads that share a transaction: none is refused, kept waiting or believed for what another is.

use std::time::{Duration, Instant};

use futures::future::join_all;
use sqlx_core::executor::Executor;
use synchrotron_core::model::{Effect, Patch, Value};
use synchrotron_core::wire::{Outcome, RejectionKind, UploadBatch};
use synchrotron_server::settings::UploadSettings;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::fixture::{Device, Theatre, accepted, audience, columns, hold, note, patch, rejected, seat};

/// One worker, which an upload keeps busy until `release`: what is sent meanwhile becomes one group.
async fn together(theatre: &Theatre, uploads: Vec<(Device, UploadBatch)>) -> Vec<Outcome> {
    join_all(sent_together(theatre, uploads).await).await.into_iter().map(|outcome| outcome.expect("runs")).collect()
}

/// The same, and their outcomes when they come.
async fn sent_together(theatre: &Theatre, uploads: Vec<(Device, UploadBatch)>) -> Vec<JoinHandle<Outcome>> {
    let mut holder = theatre.pool.acquire().await.expect("connects");
    holder.execute("BEGIN; LOCK TABLE synchrotron.clients IN SHARE MODE").await.expect("locks");
    let first = theatre.device("alice");
    let batch = UploadBatch { epoch: uploads[0].1.epoch, ..plain(&first) };
    let service = theatre.service.clone();
    let blocked = tokio::spawn(async move { service.upload(&first.principal, batch).await });
    until_waiting(theatre, 1).await;
    let sent =
        uploads.into_iter().map(|(device, batch)| tokio::spawn(async move { device.send(&batch).await })).collect();
    // All are in the queue once the runtime has run them; nothing tells it from outside but this.
    for _turn in 0..100 {
        tokio::task::yield_now().await;
    }
    holder.execute("COMMIT").await.expect("releases");
    drop(blocked.await.expect("runs"));
    sent
}

/// An upload of nothing.
fn plain(device: &Device) -> UploadBatch {
    UploadBatch {
        batch_id: synchrotron_core::model::BatchId::from_uuid(uuid::Uuid::new_v4()),
        client_id: device.client_id,
        epoch: synchrotron_core::model::Epoch::from_uuid(uuid::Uuid::nil()),
        basis: device.cursors.clone(),
        records: Vec::new(),
    }
}

/// Waits until so many of the service's connections wait for a lock.
async fn until_waiting(theatre: &Theatre, count: i64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let waiting = "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    while theatre.count(waiting).await < count {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::task::yield_now().await;
    }
}

/// A worker that waits as long as a test holds it.
fn one_patient_worker() -> UploadSettings {
    UploadSettings { workers: 1, group_lock_within: Duration::from_secs(30), ..UploadSettings::default() }
}

async fn one_worker() -> Theatre {
    Theatre::open_with("", &[], |settings| settings.uploads = one_patient_worker()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_wait_share_a_transaction_and_each_has_its_own_outcome() {
    let theatre = one_worker().await;
    let mut uploads = Vec::new();
    for (number, user) in ["alice", "bob", "carol"].into_iter().enumerate() {
        theatre.execute(&format!("INSERT INTO project_members VALUES ('own-{user}', '{user}')")).await;
        let device = theatre.device(user);
        let id = format!("n{number}");
        let batch = device.batch(vec![device.action(10, vec![note(&id, user)])]).await;
        uploads.push((device, batch));
    }
    // Denied: another's note. Not possible: a value that its column does not take. Too early.
    theatre.execute("INSERT INTO project_members VALUES ('own-dave', 'dave'), ('own-erin', 'erin')").await;
    let thief = theatre.device("dave");
    uploads.push((thief.clone(), thief.batch(vec![thief.action(10, vec![note("stolen", "bob")])]).await));
    let wrong = theatre.device("erin");
    let row = patch("seats", "w", "project:own-erin", Effect::Insert(columns([("label", Value::Bool(true))])));
    uploads.push((wrong.clone(), wrong.batch(vec![wrong.action(10, vec![row])]).await));
    let outcomes = together(&theatre, uploads).await;
    for outcome in &outcomes[..3] {
        accepted(outcome.clone());
    }
    assert_eq!(rejected(outcomes[3].clone()).0, RejectionKind::Denied);
    assert_eq!(rejected(outcomes[4].clone()).0, RejectionKind::Constraint);
    let commits = theatre.scalar("SELECT count(DISTINCT xmin::text)::text FROM synchrotron.action_records").await;
    assert_eq!(commits.as_deref(), Some("1"), "the three are of one transaction");
    assert_eq!(theatre.count("notes").await, 3);
}

/// What the database refuses is known only when it is tried: the others are written once more without it.
#[tokio::test(flavor = "multi_thread")]
async fn refused_uploads_leave_nothing_and_cost_the_others_nothing() {
    let sql = "ALTER TABLE seats ADD CHECK (label <> 'forbidden')";
    let theatre = Theatre::open_with(sql, &[], |settings| settings.uploads = one_patient_worker()).await;
    let mut uploads = Vec::new();
    for number in 0..12 {
        let user = format!("u{number}");
        theatre.execute(&format!("INSERT INTO project_members VALUES ('{user}', '{user}')")).await;
        let device = theatre.device(&user);
        let label = if number % 2 == 0 { "fine" } else { "forbidden" };
        let row = |id: String, label: &str| {
            patch("seats", &id, &format!("project:{user}"), Effect::Insert(columns([("label", label.into())])))
        };
        let records = vec![
            device.action(10, vec![row(format!("a{number}"), "fine")]),
            device.action(11, vec![row(format!("b{number}"), label)]),
        ];
        let batch = device.batch(records).await;
        uploads.push((device, batch));
    }
    let blamed: Vec<_> = uploads.iter().map(|(_, batch)| batch.records[1].id).collect();
    for (number, outcome) in together(&theatre, uploads).await.into_iter().enumerate() {
        match outcome {
            Outcome::Accepted { ids } if number % 2 == 0 => assert_eq!(ids.len(), 2),
            Outcome::Rejected { action, kind, reason } if number % 2 == 1 => {
                assert_eq!((action, kind), (blamed[number], RejectionKind::Constraint));
                assert!(reason.contains("row 0 (table seats)"), "{reason}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    assert_eq!(theatre.count("seats").await, 12);
    assert_eq!(theatre.count("synchrotron.action_records").await, 12);
}

/// Effects of many users go to Postgres in one statement, and each is written as its user, with its very values.
#[tokio::test(flavor = "multi_thread")]
async fn each_effect_of_a_group_is_written_as_its_user() {
    let sql = "CREATE TABLE witnesses (seat text, who text, role text, jwt text);
        CREATE FUNCTION witness() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
            INSERT INTO witnesses VALUES (NEW.id, current_setting('synchrotron.user_id'), current_setting('role'),
                current_setting('request.jwt.claims')::json ->> 'sub');
            RETURN NULL; END $$;
        CREATE TRIGGER witness AFTER INSERT OR UPDATE ON seats FOR EACH ROW EXECUTE FUNCTION witness()";
    let theatre = Theatre::open_with(sql, &[], |settings| settings.uploads = one_patient_worker()).await;
    let labels = ["plain", "", "NULL", "a,b", "{c}", r#"say "d" \e\"#, "it's $1 %L 'f''", "tab\t line\n", "ü🦀"];
    let mut uploads = Vec::new();
    for (number, label) in labels.iter().enumerate() {
        let user = format!("u{number}");
        theatre.execute(&format!("INSERT INTO project_members VALUES ('{user}', '{user}')")).await;
        let device = theatre.device(&user);
        let row = |id: String, effect| patch("seats", &id, &format!("project:{user}"), effect);
        let made = columns([("label", (*label).into()), ("holder", Value::Null)]);
        let taken = columns([("holder", (*label).into())]);
        let records = vec![
            device.action(10, vec![row(format!("a{number}"), Effect::Insert(made.clone()))]),
            device.action(11, vec![row(format!("b{number}"), Effect::Insert(made))]),
            device.action(12, vec![row(format!("a{number}"), Effect::Update(taken))]),
        ];
        let batch = device.batch(records).await;
        uploads.push((device, batch));
    }
    for outcome in together(&theatre, uploads).await {
        accepted(outcome);
    }
    for (number, label) in labels.iter().enumerate() {
        let read = |columns: &str, id: &str| format!("SELECT {columns} FROM seats WHERE id = '{id}{number}'");
        assert_eq!(theatre.scalar(&read("label", "a")).await.as_deref(), Some(*label));
        assert_eq!(theatre.scalar(&read("holder", "a")).await.as_deref(), Some(*label));
        assert_eq!(theatre.scalar(&read("holder", "b")).await, None);
        let own = format!("witnesses WHERE seat IN ('a{number}', 'b{number}') AND who = 'u{number}' AND jwt = who");
        assert_eq!(theatre.count(&format!("{own} AND role = 'synchrotron_user'")).await, 3);
    }
    assert_eq!(theatre.count("witnesses").await, 3 * i64::try_from(labels.len()).expect("few"));
}

/// What becomes of an upload with these rows in a group with three others, which are all taken; and of the seats. There is
/// a seat already: bob's.
async fn beside_others(user: &str, rows: Vec<Patch>) -> (Outcome, Option<String>) {
    let theatre = one_worker().await;
    for user in ["alice", "bob", "u0", "u1", "u2"] {
        theatre.execute(&format!("INSERT INTO project_members VALUES ('own-{user}', '{user}')")).await;
    }
    let mut bob = theatre.device("bob");
    let there = columns([("label", "x".into()), ("holder", "bob".into())]);
    let record = bob.action(5, vec![patch("seats", "there", "project:own-bob", Effect::Insert(there))]);
    bob.sync(vec![record]).await;
    let device = if user == "bob" { bob } else { theatre.device(user) };
    let records = (10..).zip(rows).map(|(at, row)| device.action(at, vec![row])).collect();
    let mut uploads = vec![(device.clone(), device.batch(records).await)];
    for user in ["u0", "u1", "u2"] {
        let device = theatre.device(user);
        let made = Effect::Insert(columns([("label", "x".into())]));
        let record = device.action(10, vec![patch("seats", user, &format!("project:own-{user}"), made)]);
        uploads.push((device.clone(), device.batch(vec![record]).await));
    }
    let mut outcomes = together(&theatre, uploads).await;
    outcomes.drain(1..).for_each(|outcome| drop(accepted(outcome)));
    let seats = "SELECT string_agg(id || ' ' || label || ' ' || coalesce(holder, '-'), ', ' ORDER BY id) FROM seats";
    (outcomes.remove(0), theatre.scalar(seats).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_on_a_row_that_is_gone_is_taken_in_a_group() {
    let row = |effect| patch("seats", "gone", "project:own-alice", effect);
    let label = || columns([("label", "y".into())]);
    let rows = vec![row(Effect::Insert(label())), row(Effect::Delete), row(Effect::Update(label()))];
    let (outcome, seats) = beside_others("alice", rows).await;
    accepted(outcome);
    assert_eq!(seats.as_deref(), Some("there x bob, u0 x -, u1 x -, u2 x -"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_effect_on_anothers_row_is_refused_in_a_group() {
    let label = Effect::Update(columns([("label", "y".into())]));
    let (outcome, seats) = beside_others("alice", vec![patch("seats", "there", "project:own-alice", label)]).await;
    assert_eq!(rejected(outcome).0, RejectionKind::AudienceMismatch);
    assert_eq!(seats.as_deref(), Some("there x bob, u0 x -, u1 x -, u2 x -"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_made_again_is_set_as_a_whole_in_a_group() {
    let made = Effect::Insert(columns([("label", "y".into())]));
    let (outcome, seats) = beside_others("bob", vec![patch("seats", "there", "project:own-bob", made)]).await;
    accepted(outcome);
    assert_eq!(seats.as_deref(), Some("there y -, u0 x -, u1 x -, u2 x -"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_from_two_devices_at_once_is_taken_once() {
    let theatre = one_worker().await;
    let (alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    let record = alice.action(10, vec![note("mine", "alice")]);
    let mut same = bob.action(11, vec![note("his", "bob")]);
    same.id = record.id;
    let batches = [(alice.clone(), alice.batch(vec![record]).await), (bob.clone(), bob.batch(vec![same]).await)];
    let mut outcomes = together(&theatre, batches.into()).await;
    outcomes.sort_by_key(|outcome| !matches!(outcome, Outcome::Accepted { .. }));
    accepted(outcomes[0].clone());
    assert_eq!(rejected(outcomes[1].clone()).0, RejectionKind::DuplicateId);
    assert_eq!(theatre.count("notes").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_writer_of_an_audience_in_one_group_is_behind_the_first() {
    let theatre = one_worker().await;
    let (alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    let batches = [
        (alice.clone(), alice.batch(vec![alice.action(10, vec![seat("a")])]).await),
        (bob.clone(), bob.batch(vec![bob.action(11, vec![seat("b")])]).await),
    ];
    let outcomes = together(&theatre, batches.into()).await;
    let taken = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count();
    let behind = |outcome: &&Outcome| matches!(outcome, Outcome::BehindHead { heads } if heads.contains_key(&audience("project:p")));
    assert_eq!((taken, outcomes.iter().filter(behind).count()), (1, 1), "{outcomes:?}");
    let mut second = if matches!(outcomes[0], Outcome::Accepted { .. }) { bob } else { alice };
    second.sync(vec![second.action(12, vec![seat("c")])]).await;
}

/// A psql session that holds a row for minutes is nobody's trouble but of those who write that row.
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_row_holds_up_only_its_own_upload() {
    let theatre = Theatre::open_with("", &[], |settings| {
        let lock_within = Duration::from_secs(20);
        settings.uploads = UploadSettings { workers: 1, lock_within, ..UploadSettings::default() };
    })
    .await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(1, vec![seat("s")])]).await;
    let mut holder = theatre.pool.acquire().await.expect("connects");
    holder.execute("BEGIN; UPDATE seats SET holder = 'psql' WHERE id = 's'").await.expect("locks the row");
    alice.catch_up().await;
    let held = alice.batch(vec![alice.action(2, vec![hold("s", Some("alice"))])]).await;
    let waiting = tokio::spawn({
        let alice = alice.clone();
        async move { alice.send(&held).await }
    });
    for number in 0..20 {
        let user = format!("user{number}");
        theatre.execute(&format!("INSERT INTO project_members VALUES ('own-{user}', '{user}')")).await;
        let other = theatre.device(&user);
        accepted(other.upload(vec![other.action(10, vec![note(&format!("n{number}"), &user)])]).await);
    }
    assert!(!waiting.is_finished(), "all others were served while it waited");
    assert!(matches!(waiting.await.expect("runs"), Outcome::Retry { .. }));
    holder.execute("ROLLBACK").await.expect("releases");
    accepted(alice.upload(vec![alice.action(3, vec![hold("s", Some("alice"))])]).await);
    assert_eq!(theatre.holder("s").await.as_deref(), Some("alice"));
}

/// Many write a row that somebody has locked for minutes. Whoever was with them in one transaction is not kept waiting.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_shared_a_group_with_blocked_uploads_is_answered_within_moments() {
    let group_lock_within = Duration::from_secs(2);
    let theatre = Theatre::open_with("", &[], |settings| {
        settings.uploads = UploadSettings { group_lock_within, ..one_patient_worker() };
    })
    .await;
    theatre.execute("INSERT INTO project_members SELECT 'hot', 'hot' || n FROM generate_series(0, 59) n").await;
    theatre.execute("INSERT INTO seats VALUES ('hot', 'x', NULL, 'project:hot')").await;
    let mut psql = theatre.pool.acquire().await.expect("connects");
    psql.execute("BEGIN; UPDATE seats SET holder = 'psql' WHERE id = 'hot'").await.expect("locks the row");
    let mut uploads = Vec::new();
    for number in 0..60 {
        let device = theatre.device(&format!("hot{number}"));
        let taken = Effect::Update(columns([("holder", "me".into())]));
        let batch = device.batch(vec![device.action(10, vec![patch("seats", "hot", "project:hot", taken)])]).await;
        uploads.push((device, batch));
    }
    for user in ["dave", "erin"] {
        theatre.execute(&format!("INSERT INTO project_members VALUES ('own-{user}', '{user}')")).await;
        let device = theatre.device(user);
        let batch = device.batch(vec![device.action(10, vec![note(user, user)])]).await;
        uploads.push((device, batch));
    }
    let mut sent = sent_together(&theatre, uploads).await;
    for innocent in sent.split_off(60) {
        let outcome = timeout(Duration::from_secs(15), innocent).await.expect("within moments");
        accepted(outcome.expect("runs"));
    }
    assert!(sent.iter().all(|blocked| !blocked.is_finished()), "the row is still locked");
    psql.execute("ROLLBACK").await.expect("releases");
    let taken = join_all(sent).await.into_iter().filter(|sent| matches!(sent, Ok(Outcome::Accepted { .. }))).count();
    assert_eq!(taken, 1, "of those at one head, the first");
}

const FOUNDED: &str = "CREATE TABLE members (id text PRIMARY KEY, user_id text, audience_key text);
    ALTER TABLE members ENABLE ROW LEVEL SECURITY;
    CREATE POLICY self ON members USING (user_id = current_setting('synchrotron.user_id', true));
    CREATE OR REPLACE VIEW synchrotron.user_audiences AS
        SELECT user_id, 'project:' || project_id AS audience_key FROM project_members
        UNION ALL SELECT user_id, audience_key FROM members;
    GRANT SELECT, INSERT ON members TO synchrotron_user;";

/// An upload that founds the audience of a new user.
async fn founding(device: &Device) -> UploadBatch {
    let joins = Effect::Insert(columns([("user_id", "nina".into())]));
    let row = patch("members", &device.client_id.to_string(), "user:nina", joins);
    device.batch(vec![device.action(10, vec![row])]).await
}

fn is_behind(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::BehindHead { heads } if heads.contains_key(&audience("user:nina")))
}

/// Both phones of a new user made its first audience: one founds it, and the other hears that it is behind.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_founders_in_one_group_the_second_is_behind_and_a_stranger_is_denied() {
    let theatre = Theatre::open_with(FOUNDED, &["members"], |settings| settings.uploads = one_patient_worker()).await;
    let (phone, tablet, mallory) = (theatre.device("nina"), theatre.device("nina"), theatre.device("mallory"));
    let intruding = patch("seats", "m", "user:nina", Effect::Insert(columns([("label", "x".into())])));
    let uploads = vec![
        (phone.clone(), founding(&phone).await),
        (tablet.clone(), founding(&tablet).await),
        (mallory.clone(), mallory.batch(vec![mallory.action(10, vec![intruding])]).await),
    ];
    let outcomes = together(&theatre, uploads).await;
    let founded = outcomes[..2].iter().filter(|outcome| matches!(outcome, Outcome::Accepted { .. })).count();
    let behind = outcomes[..2].iter().filter(|outcome| is_behind(outcome)).count();
    assert_eq!((founded, behind), (1, 1), "{outcomes:?}");
    assert_eq!(rejected(outcomes[2].clone()).0, RejectionKind::Denied);
}

/// The same by two servers: the second waits for the first one's head, and was no member when it began to.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_founder_is_behind_it() {
    let theatre = Theatre::open_with(FOUNDED, &["members"], |settings| settings.uploads = one_patient_worker()).await;
    let tablet = theatre.device("nina");
    let batch = founding(&tablet).await;
    let mut founder = theatre.pool.begin().await.expect("begins");
    let lock = "SELECT synchrotron.lock_heads(ARRAY['user:nina'], NULL);
        INSERT INTO synchrotron.action_records SELECT (jsonb_populate_record(r, jsonb_build_object(
            'id', gen_random_uuid(), 'server_ingest_id', 1000, 'clock', 0, 'client_id', gen_random_uuid()))).*
            FROM synchrotron.action_records r LIMIT 1";
    founder.execute(lock).await.expect("locks");
    let waiting = tokio::spawn(async move { tablet.send(&batch).await });
    until_waiting(&theatre, 1).await;
    let found = "INSERT INTO members VALUES ('m', 'nina', 'user:nina');
        INSERT INTO synchrotron.action_audiences VALUES ('user:nina', 1000, gen_random_uuid(), gen_random_uuid());
        UPDATE synchrotron.audience_heads SET head = 1000 WHERE audience_key = 'user:nina'";
    founder.execute(found).await.expect("founds");
    founder.commit().await.expect("commits");
    let outcome = waiting.await.expect("runs");
    assert!(is_behind(&outcome), "{outcome:?}");
}
