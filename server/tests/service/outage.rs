//! Postgres goes away and comes back.

use std::time::Duration;

use sqlx_core::executor::Executor;
use synchrotron_core::wire::{FaultCode, Outcome};
use synchrotron_testkit::{Postgres, wait_for};
use tokio::time::{Instant, timeout};

use crate::fixture::{Theatre, seat};

/// A probe that waits for as long as what it asks about is of no use to whoever probes.
#[tokio::test]
async fn readiness_is_told_in_time_while_nothing_in_postgres_moves() {
    let theatre = Theatre::open_with("", &[], |settings| settings.pool_connections_max = 1).await;
    assert!(theatre.service.ready().await);
    let mut blocking = theatre.pool.begin().await.expect("begins");
    blocking.execute("LOCK TABLE synchrotron.clients IN ACCESS EXCLUSIVE MODE").await.expect("locks");
    let alice = theatre.device("alice");
    let waiting = tokio::spawn(async move { alice.session().await });
    let blocked = async || {
        let sql = "SELECT pid::text FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '/* client.bind%' \
                   AND datname = current_database()";
        theatre.scalar(sql).await
    };
    wait_for("the one connection to be taken", Duration::from_secs(10), blocked).await.expect("taken");
    let asked = Instant::now();
    assert!(!theatre.service.ready().await);
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    blocking.rollback().await.expect("lets go");
    timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("served");
    assert!(theatre.service.ready().await);
}

#[tokio::test]
async fn a_server_that_leaves_is_not_ready_and_still_serves() {
    let theatre = Theatre::open().await;
    theatre.service.leave();
    assert!(!theatre.service.ready().await);
    assert_eq!(theatre.device("alice").session().await.user_id.as_str(), "alice");
}

#[tokio::test]
async fn trouble_of_the_server_is_never_a_rejection() {
    let postgres = Postgres::start().await.expect("postgres");
    let theatre = Theatre::open_on(&postgres, "", &[], |_| {}).await;
    let alice = theatre.device("alice");
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    if postgres.kill().await.is_err() {
        // Given by URL: it is not ours to stop.
        return;
    }
    assert!(!theatre.service.ready().await);
    assert!(matches!(alice.send(&batch).await, Outcome::Retry { .. }));
    let fault = theatre.service.audiences_of(&alice.principal.user_id).await.expect_err("away");
    assert_eq!(fault.code, FaultCode::Unavailable);
    postgres.restart().await.expect("starts again");
    let accepted = wait_for("the upload to be accepted", Duration::from_secs(30), async || {
        Some(alice.send(&batch).await).filter(|outcome| matches!(outcome, Outcome::Accepted { .. }))
    });
    accepted.await.expect("accepted");
    assert_eq!(theatre.count("seats").await, 1);
}

/// Nor does trying again help: somebody has to grant what is missing.
#[tokio::test]
async fn a_right_that_is_missing_is_no_outage() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    theatre.execute("REVOKE SELECT ON seats FROM synchrotron_user").await;
    let fault = alice.begin(&["project:p1"]).await.expect_err("denied");
    assert_eq!(fault.code, FaultCode::Unavailable);
    let said = fault.to_string();
    assert!(said.contains("set up wrongly") && said.contains("synchrotron-server check"), "{said}");
}
