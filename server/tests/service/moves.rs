//! Rows that an action moves: it deletes them in one audience and inserts them in another, and each may be corrected there.

use synchrotron_core::model::{Effect, Patch};
use synchrotron_core::wire::RejectionKind;

use crate::fixture::{Device, Theatre, audience, columns, patch, rejected, remove, seat};

fn labelled(row: &str, key: &str, label: &str) -> Patch {
    patch("seats", row, key, Effect::Insert(columns([("label", label.into())])))
}

fn nothing(row: &str, key: &str) -> Patch {
    patch("seats", row, key, Effect::Nothing)
}

async fn row(theatre: &Theatre) -> Option<String> {
    theatre.scalar("SELECT label || ' ' || audience_key FROM seats").await
}

/// Bob, who is in p and q, has moved a seat from p to q; then Alice's new label for it, from before that, arrives.
async fn moved() -> (Theatre, Device, synchrotron_core::model::ReplayKey) {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    let moves = bob.action(30, vec![remove("A1"), labelled("A1", "project:q", "old")]);
    let position = bob.position(&moves);
    bob.sync(vec![moves]).await;
    let relabel = Effect::Update(columns([("label", "new".into())]));
    alice.sync(vec![alice.action(20, vec![patch("seats", "A1", "project:p", relabel)])]).await;
    assert_eq!(row(&theatre).await.as_deref(), Some("old project:q"));
    bob.catch_up().await;
    (theatre, bob, position)
}

#[tokio::test]
async fn a_correction_of_where_a_row_came_leaves_alone_from_where_it_went() {
    let (theatre, mut bob, position) = moved().await;
    bob.sync(vec![bob.correction(position, vec![labelled("A1", "project:q", "new")])]).await;
    assert_eq!(row(&theatre).await.as_deref(), Some("new project:q"));
    bob.sync(vec![bob.correction(position, vec![nothing("A1", "project:q")])]).await;
    assert_eq!(row(&theatre).await, None, "it is gone from p all the same");
}

#[tokio::test]
async fn a_correction_does_not_leave_a_row_in_two_audiences() {
    let (theatre, mut bob, position) = moved().await;
    for half in [nothing("A1", "project:p"), labelled("A1", "project:p", "new")] {
        let outcome = bob.upload(vec![bob.correction(position, vec![half])]).await;
        assert_eq!(rejected(outcome).0, RejectionKind::AudienceMismatch);
    }
    assert_eq!(row(&theatre).await.as_deref(), Some("old project:q"));
    let both = vec![nothing("A1", "project:q"), nothing("A1", "project:p")];
    bob.sync(vec![bob.correction(position, both)]).await;
    assert_eq!(row(&theatre).await.as_deref(), Some("new project:p"), "it never went");
    let mut quinn = theatre.device("quinn");
    theatre.execute("INSERT INTO project_members VALUES ('q', 'quinn')").await;
    let heard: Vec<_> = quinn.catch_up().await.into_iter().flat_map(|record| record.rows).collect();
    let of_q = |rows: &[Patch]| rows.iter().all(|row| row.audience_key == audience("project:q"));
    assert!(of_q(&heard) && heard.last().is_some_and(|row| row.effect == Effect::Nothing), "{heard:?}");
}
