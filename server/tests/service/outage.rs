//! Postgres goes away and comes back.

use std::time::Duration;

use synchrotron_core::wire::{FaultCode, Outcome};
use synchrotron_testkit::{Postgres, wait_for};

use crate::fixture::{Theatre, seat};

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
