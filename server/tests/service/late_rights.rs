//! What arrives beneath other effects, and corrections, can do nothing that its user may not do: policies judge every effect,
//! also those that later ones hide.
//!
//! Mallory is in project p, and may read its seats and nothing else. Bob may write to p, and only read q.

use synchrotron_core::model::{Effect, Patch};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::fixture::{Theatre, columns, hold, patch, rejected, remove, seat};

const READERS: &str = "
    ALTER TABLE seats ADD place smallint;
    INSERT INTO project_members VALUES ('p', 'mallory');
    CREATE FUNCTION reads_only(audience text) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT (current_setting('synchrotron.user_id', true), audience) IN (('mallory', 'project:p'), ('bob', 'project:q'))
    $$;
    CREATE POLICY no_insert ON seats AS RESTRICTIVE FOR INSERT WITH CHECK (NOT reads_only(audience_key));
    CREATE POLICY no_update ON seats AS RESTRICTIVE FOR UPDATE USING (NOT reads_only(audience_key));
    CREATE POLICY no_delete ON seats AS RESTRICTIVE FOR DELETE USING (NOT reads_only(audience_key));";

async fn theatre() -> Theatre {
    Theatre::open_with(READERS, &[], |_| {}).await
}

fn held(row: &str, holder: &str) -> Patch {
    patch("seats", row, "project:p", Effect::Insert(columns([("label", row.into()), ("holder", holder.into())])))
}

fn placed(row: &str, place: i64) -> Patch {
    patch("seats", row, "project:p", Effect::Update(columns([("place", place.into())])))
}

fn in_q(mut patch: Patch) -> Patch {
    patch.audience_key = crate::fixture::audience("project:q");
    patch
}

fn nothing(row: &str) -> Patch {
    patch("seats", row, "project:p", Effect::Nothing)
}

fn assert_denied(outcome: Outcome) {
    let (kind, reason) = rejected(outcome);
    assert_eq!(kind, RejectionKind::Denied, "{reason}");
}

#[tokio::test]
async fn an_effect_on_a_row_that_never_was_does_not_wait_for_it() {
    let theatre = theatre().await;
    let mut mallory = theatre.device("mallory");
    for effect in [hold("x1", Some("mallory")), remove("x1")] {
        mallory.catch_up().await;
        assert_denied(mallory.upload(vec![mallory.action(10, vec![effect])]).await);
    }
    let mut alice = theatre.device("alice");
    let made = alice.action(20, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    mallory.catch_up().await;
    let added = mallory.correction(alice.position(&made), vec![hold("x1", Some("mallory"))]);
    assert_denied(mallory.upload(vec![added]).await);
}

#[tokio::test]
async fn a_late_row_that_is_removed_and_made_again_is_judged_as_made() {
    let theatre = theatre().await;
    let (mut alice, mut mallory) = (theatre.device("alice"), theatre.device("mallory"));
    alice.sync(vec![alice.action(3, vec![seat("x1")]), alice.action(12, vec![remove("x1")])]).await;
    mallory.catch_up().await;
    let again = mallory.action(5, vec![remove("x1"), held("x1", "mallory")]);
    assert_denied(mallory.upload(vec![again]).await);
    // Above the removal it would show.
    alice.sync(vec![alice.action(30, vec![hold("x1", Some("alice"))])]).await;
    mallory.catch_up().await;
    let again = mallory.action(20, vec![remove("x1"), held("x1", "mallory")]);
    assert_denied(mallory.upload(vec![again]).await);
    assert_eq!(theatre.count("seats").await, 0);
}

#[tokio::test]
async fn a_late_change_of_a_row_that_was_removed_since_is_judged_as_if_it_were_there() {
    let theatre = theatre().await;
    let (mut alice, mut mallory) = (theatre.device("alice"), theatre.device("mallory"));
    let gone = alice.action(12, vec![remove("A1")]);
    alice.sync(vec![alice.action(3, vec![seat("A1")]), gone.clone()]).await;
    mallory.catch_up().await;
    assert_denied(mallory.upload(vec![mallory.action(5, vec![hold("A1", Some("mallory"))])]).await);
    assert_denied(mallory.upload(vec![mallory.action(5, vec![remove("A1")])]).await);
    assert_denied(mallory.upload(vec![mallory.action(20, vec![hold("A1", Some("mallory"))])]).await);
    let mut bob = theatre.device("bob");
    bob.sync(vec![bob.action(6, vec![hold("A1", Some("bob"))])]).await;
    alice.sync(vec![alice.correction(alice.position(&gone), vec![nothing("A1")])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("bob"), "bob may, and the removal is taken back");
}

#[tokio::test]
async fn a_value_that_cannot_be_tried_is_not_taken_for_one_that_may_be_written() {
    let theatre = theatre().await;
    let (mut alice, mut mallory) = (theatre.device("alice"), theatre.device("mallory"));
    let early = vec![alice.action(1, vec![seat("z1")]), alice.action(2, vec![remove("z1")])];
    alice.sync(early).await;
    alice.sync(vec![alice.action(10, vec![placed("z1", 77)])]).await;
    mallory.catch_up().await;
    let evil = columns([("label", "evil".into()), ("holder", "mallory".into()), ("place", 100_000_i64.into())]);
    let late = mallory.action(5, vec![patch("seats", "z1", "project:p", Effect::Insert(evil))]);
    rejected(mallory.upload(vec![late]).await);
    assert_eq!(theatre.count("seats").await, 0);
}

#[tokio::test]
async fn a_late_move_is_judged_where_it_goes() {
    let theatre = theatre().await;
    let mut bob = theatre.device("bob");
    bob.sync(vec![bob.action(1, vec![seat("w1")])]).await;
    let held = bob.action(10, vec![hold("w1", Some("bob"))]);
    bob.sync(vec![held.clone()]).await;
    bob.sync(vec![bob.correction(bob.position(&held), vec![nothing("w1")])]).await;
    bob.catch_up().await;
    assert_denied(bob.upload(vec![bob.action(5, vec![remove("w1"), in_q(seat("w1"))])]).await);
    let whose = theatre.scalar("SELECT audience_key FROM seats").await;
    assert_eq!(whose.as_deref(), Some("project:p"));
}

#[tokio::test]
async fn a_correction_that_later_effects_hide_is_judged_too() {
    let theatre = theatre().await;
    let (mut alice, mut bob, mut mallory) = (theatre.device("alice"), theatre.device("bob"), theatre.device("mallory"));
    let made = alice.action(10, vec![seat("s1")]);
    alice.sync(vec![made.clone()]).await;
    let first = alice.action(15, vec![hold("s1", Some("alice"))]);
    alice.sync(vec![first.clone()]).await;
    let second = bob.action(20, vec![hold("s1", Some("bob"))]);
    bob.sync(vec![second.clone()]).await;
    mallory.catch_up().await;
    // What changes nothing yet overrules what arrives beneath it.
    for (amended, effect) in [
        (&made, held("s1", "mallory")),
        (&made, nothing("s1")),
        (&first, hold("s1", Some("mallory"))),
        (&first, hold("s1", Some("alice"))),
        (&first, nothing("s1")),
        (&second, hold("s1", Some("bob"))),
        (&second, nothing("s1")),
    ] {
        let author = if std::ptr::eq(amended, &second) { &bob } else { &alice };
        let correction = mallory.correction(author.position(amended), vec![effect]);
        assert_denied(mallory.upload(vec![correction]).await);
    }
    alice.sync(vec![alice.correction(alice.position(&made), vec![held("s1", "alice's")])]).await;
    alice.sync(vec![alice.correction(alice.position(&first), vec![nothing("s1")])]).await;
    bob.sync(vec![bob.correction(bob.position(&second), vec![nothing("s1")])]).await;
    assert_eq!(theatre.holder("s1").await.as_deref(), Some("alice's"));
}
