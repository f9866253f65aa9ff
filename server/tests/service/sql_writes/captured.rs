//! What is captured, from whom, and how it is told.

use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use synchrotron_core::model::{ActionTag, RecordBody, Value};
use synchrotron_core::wire::{FaultCode, Outcome, RejectionKind, SessionRequest};
use uuid::Uuid;

use super::{nobody, published, tag, told};
use crate::fixture::{Theatre, accepted, hold, rejected, seat};

#[tokio::test]
async fn plain_writes_reach_fetch_and_the_outbox() {
    let theatre = Theatre::open().await;
    let mut bob = theatre.device("bob");
    let made = "INSERT INTO seats SELECT 'S' || n, 'l', NULL, 'project:p' FROM generate_series(1, 3) n";
    theatre.execute(made).await;
    assert_eq!(theatre.pick_up().await, 3);
    let records = bob.catch_up().await;
    assert_eq!(told(&records), ["S1 INSERT", "S2 INSERT", "S3 INSERT"]);
    assert_eq!((records.len(), tag(&records[0]), records[0].row_count), (1, "_sql_write_v1", 3), "one transaction");
    assert_eq!((records[0].record.client_id, records[0].record.user_id.as_str()), (nobody(), "_server"));
    let slices = theatre.service.unpublished_slices(10).await.expect("slices");
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].1.records, records, "live devices get the same");

    theatre.execute("UPDATE seats SET holder = 'job', label = label WHERE id <> 'S3'").await;
    theatre.execute("DELETE FROM seats WHERE id IN ('S2', 'S3')").await;
    theatre.pick_up().await;
    // S2 is gone: what was written to it before does not matter.
    assert_eq!(told(&bob.catch_up().await), ["S1 UPDATE holder", "S2 DELETE", "S3 DELETE"]);
    theatre.execute("UPDATE seats SET holder = holder").await;
    assert_eq!(theatre.pick_up().await, 0, "nothing has changed");
    theatre.assert_in_step(&["alice", "bob"]).await;
    assert_eq!(theatre.count("synchrotron.staged_writes").await, 0);
}

#[tokio::test]
async fn a_transaction_is_a_record_or_several_if_it_is_large() {
    let theatre = Theatre::open_with("", &[], |settings| {
        settings.max_record_bytes = 2_000;
        settings.sql_writes.batch_rows_max = 7;
    })
    .await;
    let mut bob = theatre.device("bob");
    let many = "INSERT INTO seats SELECT 'S' || n, repeat('x', 500), NULL, 'project:p' FROM generate_series(1, 20) n";
    theatre.execute(many).await;
    theatre.execute("INSERT INTO seats VALUES ('large', repeat('x', 5000), NULL, 'project:p')").await;
    assert_eq!(theatre.pick_up().await, 21);
    let records = bob.catch_up().await;
    let sizes: Vec<usize> = records.iter().map(|record| record.rows.len()).collect();
    assert_eq!(sizes, [3, 3, 1, 3, 3, 1, 3, 3, 1], "passes of seven, records of three, the large row alone");
    theatre.assert_in_step(&["bob"]).await;
}

/// What devices are told of a row that changes its id or its audience is that it went, and that it came.
#[tokio::test]
async fn another_id_or_audience_is_another_row() {
    let theatre = Theatre::open().await;
    theatre.execute("INSERT INTO seats SELECT 'S' || n, 'l', 'h', 'project:p' FROM generate_series(1, 4) n").await;
    theatre.execute("UPDATE seats SET audience_key = 'project:q' WHERE id = 'S1'").await;
    theatre.pick_up().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    assert_eq!(told(&alice.catch_up().await), ["S1 DELETE", "S2 INSERT", "S3 INSERT", "S4 INSERT"]);
    assert_eq!(bob.catch_up().await[0].rows.len(), 5);
    theatre.execute("UPDATE seats SET id = 'T2' WHERE id = 'S2'").await;
    theatre.execute("UPDATE seats SET audience_key = 'project:q' WHERE id = 'S3'").await;
    theatre.execute("BEGIN; DELETE FROM seats WHERE id = 'S4'; INSERT INTO seats (id, audience_key) VALUES ('S4', 'project:p'); COMMIT").await;
    theatre.pick_up().await;
    assert_eq!(told(&alice.catch_up().await), ["S2 DELETE", "T2 INSERT", "S3 DELETE", "S4 INSERT"]);
    assert_eq!(theatre.assert_in_step(&["alice", "bob"]).await.len(), 4);
}

#[tokio::test]
async fn copy_and_truncate_are_writes_like_any() {
    let theatre = Theatre::open().await;
    theatre.execute("COPY seats FROM PROGRAM 'printf \"C1,x,,project:p\\nC2,y,,project:q\\n\"' (FORMAT csv)").await;
    assert_eq!(theatre.pick_up().await, 2);
    assert_eq!(theatre.assert_in_step(&["alice", "bob"]).await.len(), 2);
    theatre.execute("TRUNCATE seats, notes").await;
    assert_eq!(theatre.pick_up().await, 2);
    assert!(theatre.assert_in_step(&["alice", "bob"]).await.is_empty());
}

#[tokio::test]
async fn rows_that_no_device_can_be_told_of_are_left_out() {
    let theatre = Theatre::open().await;
    theatre
        .execute(
            "INSERT INTO seats VALUES ('none', 'l', 'h', NULL), ('long', 'l', 'h', repeat('x', 513)), \
             (repeat('x', 257), 'l', 'h', 'project:p'), ('good', 'l', 'h', 'project:p')",
        )
        .await;
    assert_eq!(theatre.pick_up().await, 4);
    assert_eq!(told(&theatre.device("bob").catch_up().await), ["good INSERT"]);
    theatre.execute("UPDATE seats SET audience_key = 'project:p' WHERE id = 'none'").await;
    theatre.execute("UPDATE seats SET audience_key = NULL WHERE id = 'good'").await;
    theatre.pick_up().await;
    let rows = theatre.device("bob").catch_up().await;
    assert_eq!(told(&rows), ["good INSERT", "none INSERT", "good DELETE"]);
}

/// What differs by more than equality differs for devices too.
#[tokio::test]
async fn changes_are_seen_whatever_the_type_calls_equal() {
    let sql = "CREATE TABLE kinds (id uuid PRIMARY KEY, audience_key text, n numeric, r float8, j json, b bytea, \
        doubled float8 GENERATED ALWAYS AS (r * 2) STORED, at timestamptz, a int[]); \
        GRANT ALL ON kinds TO synchrotron_user";
    let theatre = Theatre::open_with(sql, &["kinds"], |_| {}).await;
    let id = "a8098c1a-f86e-11da-bd1a-00112444be1e";
    theatre
        .execute(&format!(
            "SET extra_float_digits = 0; INSERT INTO kinds (id, audience_key, n, r, j, b, at, a) \
             VALUES ('{id}', 'project:p', 1.0, 0.3, '{{\"a\": 1}}', '\\x00ff', '2026-01-31 23:59:59+00', '{{1,2}}')"
        ))
        .await;
    theatre.pick_up().await;
    for (change, column) in [
        ("n = 1.00", "n"),
        ("r = 0.1::float8 + 0.2::float8", "r"),
        ("j = '{\"a\":1}'", "j"),
        ("b = '\\x00fe'", "b"),
        ("at = at + interval '1 microsecond'", "at"),
        ("a = a || 3", "a"),
        ("a = NULL", "a"),
        // A text that is no text to Postgres: which columns differ cannot be said.
        ("j = '\"\\u0000\"'", "a,at,b,j,n,r"),
    ] {
        let mut bob = theatre.device("bob");
        bob.catch_up().await;
        theatre.execute(&format!("SET extra_float_digits = 0; UPDATE kinds SET {change}")).await;
        theatre.pick_up().await;
        assert_eq!(told(&bob.catch_up().await), [format!("{id} UPDATE {column}")], "{change}");
    }
    theatre.assert_in_step(&["bob"]).await;
}

/// Whoever may write the table may write it: no right on the server's schema is needed, and no setting hides a write.
#[tokio::test]
async fn a_role_with_rights_on_the_table_only_is_captured() {
    let theatre = Theatre::open().await;
    let role = format!("job_{}", Uuid::new_v4().simple());
    theatre.execute(&format!("CREATE ROLE {role} BYPASSRLS; GRANT INSERT, UPDATE, TRUNCATE ON seats TO {role}")).await;
    let mut session = theatre.pool.acquire().await.expect("connects");
    let become_it = format!("SET SESSION AUTHORIZATION {role}; SET synchrotron.materializing = 'on'");
    session.execute(AssertSqlSafe(become_it)).await.expect("becomes it");
    session.execute("INSERT INTO seats VALUES ('J1', 'l', NULL, 'project:p')").await.expect("may insert");
    session.execute("UPDATE seats SET holder = 'job'").await.expect("may update");
    session.execute("SELECT FROM seats").await.expect_err("may not read");
    assert!(session.execute("SELECT FROM synchrotron.staged_writes").await.is_err(), "may not look");
    assert!(session.execute("SELECT synchrotron.capture_write()").await.is_err(), "may not call");
    assert_eq!(theatre.pick_up().await, 2);
    session.execute("TRUNCATE seats").await.expect("may truncate");
    session.execute("RESET SESSION AUTHORIZATION").await.expect("is itself again");
    assert_eq!(theatre.pick_up().await, 1);
    theatre.assert_in_step(&["bob"]).await;
    theatre.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn no_device_can_pass_for_the_server() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    let mut record = alice.action(10, vec![seat("A1")]);
    let RecordBody::Action { tag, .. } = &mut record.body else { unreachable!("an action") };
    *tag = ActionTag::new("_sql_write_v1").expect("a tag");
    assert_eq!(rejected(alice.upload(vec![record]).await).0, RejectionKind::Malformed);
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    alice.client_id = nobody();
    let fault = alice.service.session(&alice.principal, SessionRequest { client_id: nobody() }).await;
    assert_eq!(fault.expect_err("reserved").code, FaultCode::ForeignClient);
    let mut forged = batch;
    forged.client_id = nobody();
    assert!(matches!(alice.send(&forged).await, Outcome::Refused(fault) if fault.code == FaultCode::ForeignClient));
    theatre.assert_untouched().await;
}

/// Rows that are older than the log, or that came while nothing was captured, are told of by column.
#[tokio::test]
async fn a_row_without_history_keeps_what_late_uploads_say() {
    let theatre = Theatre::open_with("INSERT INTO seats VALUES ('S', 'old', 'old', 'project:p')", &[], |_| {}).await;
    let mut alice = theatre.device("alice");
    theatre.execute("UPDATE seats SET holder = 'job'").await;
    theatre.pick_up().await;
    let records = alice.catch_up().await;
    assert_eq!(published(&records)[0].effect.columns().expect("columns").get("holder"), Some(&Value::from("job")));
    let relabel = crate::fixture::patch(
        "seats",
        "S",
        "project:p",
        synchrotron_core::model::Effect::Update(crate::fixture::columns([("label", "late".into())])),
    );
    accepted(alice.upload(vec![alice.action(10, vec![relabel, hold("S", Some("late"))])]).await);
    let row = theatre.scalar("SELECT label || ' ' || holder FROM seats").await;
    assert_eq!(row.as_deref(), Some("late job"));
}
