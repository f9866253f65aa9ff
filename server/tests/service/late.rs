//! What arrives beneath other effects, and corrections.

use synchrotron_core::model::{Effect, Value};
use synchrotron_core::wire::RejectionKind;

use crate::fixture::{Theatre, columns, hold, patch, rejected, remove, seat};

fn relabel(row: &str, label: &str) -> synchrotron_core::model::Patch {
    patch("seats", row, "project:p", Effect::Update(columns([("label", label.into())])))
}

fn held(row: &str, holder: &str) -> synchrotron_core::model::Patch {
    let effect = Effect::Insert(columns([("label", "was".into()), ("holder", holder.into())]));
    patch("seats", row, "project:p", effect)
}

fn nothing(row: &str) -> synchrotron_core::model::Patch {
    patch("seats", row, "project:p", Effect::Nothing)
}

/// SRV-01, SRV-02, SRV-06
#[tokio::test]
async fn what_is_older_does_not_overwrite_what_is_newer() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("b30"))])]).await;
    bob.sync(vec![bob.action(40, vec![hold("A1", Some("b40"))])]).await;
    let late = alice.action(20, vec![hold("A1", Some("a1")), hold("A1", Some("a2")), relabel("A1", "late")]);
    alice.sync(vec![late]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("b40"));
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("late"), "no one set it later");
    let sequences = theatre
        .scalar(
            "SELECT string_agg(sequence::text, ',' ORDER BY sequence) FROM synchrotron.action_modified_rows m \
                 JOIN synchrotron.action_records r ON r.id = m.action_id WHERE r.clock = 20::bigint << 16",
        )
        .await;
    assert_eq!(sequences.as_deref(), Some("0,1,2"));
}

#[tokio::test]
async fn late_beneath_a_removal_stays_removed() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    bob.sync(vec![bob.action(30, vec![remove("A1")])]).await;
    alice.sync(vec![alice.action(20, vec![hold("A1", Some("alice"))])]).await;
    assert_eq!(theatre.count("seats").await, 0);
}

#[tokio::test]
async fn a_late_removal_beneath_an_update_removes() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("bob")), seat("A2")])]).await;
    alice.sync(vec![alice.action(20, vec![remove("A1"), remove("A2")])]).await;
    assert_eq!(theatre.scalar("SELECT string_agg(id, ',') FROM seats").await.as_deref(), Some("A2"));
}

#[tokio::test]
async fn a_correction_removes_replaces_and_restores() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    let first = alice.action(20, vec![hold("A1", Some("alice"))]);
    let second = bob.action(30, vec![hold("A1", Some("bob"))]);
    bob.sync(vec![second.clone()]).await;
    alice.sync(vec![first.clone()]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("bob"));
    let at = bob.position(&second);
    alice.sync(vec![alice.correction(at, vec![nothing("A1")])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("alice"), "the second booking is taken back");
    bob.sync(vec![bob.correction(at, vec![hold("A1", Some("carol"))])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("carol"), "the newest amendment of a row counts");
    let by_first = alice.correction(alice.position(&first), vec![hold("A1", Some("zoe")), seat("A2")]);
    alice.sync(vec![by_first]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("carol"), "a correction sits beneath what came later");
    alice.sync(vec![alice.action(40, vec![hold("A1", None)])]).await;
    assert_eq!(theatre.holder("A1").await, None);
}

#[tokio::test]
async fn a_correction_may_add_and_take_back_rows() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    let made = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    let at = alice.position(&made);
    alice.sync(vec![alice.correction(at, vec![seat("A2"), nothing("A1")])]).await;
    assert_eq!(theatre.scalar("SELECT string_agg(id, ',') FROM seats").await.as_deref(), Some("A2"));
    alice.sync(vec![alice.correction(at, vec![nothing("A2"), seat("A1")])]).await;
    assert_eq!(theatre.scalar("SELECT string_agg(id, ',') FROM seats").await.as_deref(), Some("A1"));
}

#[tokio::test]
async fn corrections_name_an_action_that_is_there_and_visible() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let made = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    bob.catch_up().await;
    let mut elsewhere = alice.position(&made);
    elsewhere.clock = elsewhere.clock.tick(99);
    let unknown = bob.position(&bob.action(5, vec![]));
    let hidden =
        bob.action(20, vec![patch("notes", "n", "user:bob", Effect::Insert(columns([("owner", "bob".into())])))]);
    bob.sync(vec![hidden.clone()]).await;
    alice.catch_up().await;
    for at in [elsewhere, unknown, bob.position(&hidden)] {
        let outcome = alice.upload(vec![alice.correction(at, vec![hold("A1", Some("x"))])]).await;
        assert_eq!(rejected(outcome).0, RejectionKind::Malformed);
    }
    let twice = vec![hold("A1", Some("x")), hold("A1", Some("y"))];
    let outcome = alice.upload(vec![alice.correction(alice.position(&made), twice)]).await;
    assert_eq!(rejected(outcome).0, RejectionKind::Malformed);
    let action_with_nothing = alice.upload(vec![alice.action(50, vec![nothing("A1")])]).await;
    assert_eq!(rejected(action_with_nothing).0, RejectionKind::Malformed);
}

#[tokio::test]
async fn late_effects_are_judged_by_policy_too() {
    let theatre = Theatre::open_with(
        "CREATE POLICY closed ON seats AS RESTRICTIVE FOR UPDATE USING (label <> 'closed')",
        &[],
        |_| {},
    )
    .await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let made = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("bob"))])]).await;
    theatre.execute("UPDATE seats SET label = 'closed'").await;
    theatre.pick_up().await;
    alice.catch_up().await;
    let late = alice.upload(vec![alice.action(20, vec![hold("A1", Some("alice"))])]).await;
    assert_eq!(rejected(late).0, RejectionKind::Denied);
    let at = alice.position(&made);
    let correction = alice.upload(vec![alice.correction(at, vec![nothing("A1")])]).await;
    assert_eq!(theatre.holder("A1").await, None, "removed: there is a policy for DELETE. {correction:?}");
}

#[tokio::test]
async fn a_late_value_that_is_overwritten_need_not_fit_beside_what_came_later() {
    let theatre = Theatre::open_with("ALTER TABLE seats ADD UNIQUE (holder)", &[], |_| {}).await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2")])]).await;
    bob.sync(vec![bob.action(30, vec![hold("A1", Some("later")), hold("A2", Some("alice"))])]).await;
    alice.sync(vec![alice.action(20, vec![hold("A1", Some("alice"))])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("later"));
}

#[tokio::test]
async fn a_row_that_is_older_than_its_history_is_not_lost() {
    let theatre = Theatre::open().await;
    theatre.execute("INSERT INTO seats VALUES ('S', 'seeded', 'nobody', 'project:p')").await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    bob.sync(vec![bob.action(30, vec![hold("S", Some("bob"))])]).await;
    alice.sync(vec![alice.action(20, vec![hold("S", Some("alice")), relabel("S", "late")])]).await;
    let row = theatre.scalar("SELECT label || ' ' || holder FROM seats").await;
    assert_eq!(row.as_deref(), Some("late bob"));
}

#[tokio::test]
async fn an_insert_of_a_taken_id_sets_the_whole_row() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1"), hold("A1", Some("alice"))])]).await;
    let bare = || patch("seats", "A1", "project:p", Effect::Insert(columns([("label", Value::Null)])));
    alice.sync(vec![alice.action(20, vec![bare()])]).await;
    let emptied = "seats WHERE holder IS NULL AND label IS NULL";
    assert_eq!(theatre.count(emptied).await, 1);
    let mut again = bare();
    again.row_id = hold("A2", None).row_id;
    alice.sync(vec![alice.action(30, vec![seat("A2"), hold("A2", Some("alice")), again])]).await;
    assert_eq!(theatre.count(emptied).await, 2);
}

/// The log does not know what such a row was; the server's own undo does.
#[tokio::test]
async fn a_row_that_is_older_than_the_log_gets_back_what_it_was() {
    let theatre = Theatre::open().await;
    theatre.execute("INSERT INTO seats VALUES ('old', 'was', 'somebody', 'project:p')").await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let taken = alice.action(20, vec![hold("old", Some("alice")), relabel("old", "new")]);
    let position = alice.position(&taken);
    alice.sync(vec![taken]).await;
    bob.sync(vec![bob.action(10, vec![hold("old", Some("bob"))])]).await;
    assert_eq!(theatre.holder("old").await.as_deref(), Some("alice"), "the later one keeps its say");
    alice.sync(vec![alice.correction(position, vec![nothing("old")])]).await;
    assert_eq!(theatre.holder("old").await.as_deref(), Some("bob"));
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("was"));

    let gone = alice.action(30, vec![remove("old")]);
    let position = alice.position(&gone);
    alice.sync(vec![gone]).await;
    assert_eq!(theatre.count("seats").await, 0);
    alice.sync(vec![alice.correction(position, vec![nothing("old")])]).await;
    assert_eq!(theatre.holder("old").await.as_deref(), Some("bob"), "whole again");
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("was"));
}

/// What an action itself did to a row is not what the row was before it, however often it makes the row.
#[tokio::test]
async fn a_row_that_one_action_makes_twice_gets_back_what_it_was() {
    let theatre = Theatre::open().await;
    theatre
        .execute("INSERT INTO seats SELECT id, 'was', 'somebody', 'project:p' FROM unnest(ARRAY['old', 'older']) id")
        .await;
    let mut alice = theatre.device("alice");
    let cases = [
        (10, "old", Some("somebody"), held("old", "first")),
        (20, "older", Some("somebody"), hold("older", Some("first"))),
        (30, "new", None, held("new", "first")),
    ];
    for (at, row, before, first) in cases {
        let made = alice.action(at, vec![first, held(row, "second")]);
        let position = alice.position(&made);
        alice.sync(vec![made]).await;
        assert_eq!(theatre.holder(row).await.as_deref(), Some("second"));
        alice.sync(vec![alice.correction(position, vec![nothing(row)])]).await;
        assert_eq!(theatre.holder(row).await.as_deref(), before);
    }
}

/// Of a long history a late arrival reads what lies above its place, and a little beneath it.
#[tokio::test]
async fn a_long_history_keeps_images_and_what_arrives_beneath_them_removes_them() {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    for round in 0..20 {
        let at = |n: i64| 1_000 + round * 100 + n;
        let some = (0..20).map(|n| alice.action(at(n), vec![hold("A1", Some(&format!("h{}", at(n))))])).collect();
        alice.sync(some).await;
    }
    let images = "synchrotron.row_images WHERE row_id = 'A1'";
    let kept = theatre.count(images).await;
    assert!((3..=10).contains(&kept), "{kept} images of 400 effects");
    let middle = 1_000 + 10 * 100 + 50;
    bob.sync(vec![bob.action(middle, vec![hold("A1", Some("bob")), relabel("A1", "bob's")])]).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("h2919"));
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("bob's"), "nobody set it later");
    let above = theatre.count(&format!("{images} AND position_clock >= {}", middle << 16)).await;
    assert_eq!(above, 0, "they did not know of it");
    assert!(theatre.count(images).await > 0, "those beneath still do");
}

/// What effects beneath an image have set goes, too, when a late effect says what the whole row is.
#[tokio::test]
async fn a_late_insert_above_an_image_sets_the_whole_row() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    let mut at = 20;
    while theatre.count("synchrotron.row_images WHERE row_id = 'A1'").await == 0 {
        alice.sync(vec![alice.action(at, vec![hold("A1", Some("before"))])]).await;
        at += 1;
    }
    alice.sync(vec![alice.action(300, vec![relabel("A1", "newest")])]).await;
    let made = patch("seats", "A1", "project:p", Effect::Insert(columns([("label", "made again".into())])));
    alice.sync(vec![alice.action(200, vec![made])]).await;
    assert_eq!(theatre.holder("A1").await, None);
    assert_eq!(theatre.scalar("SELECT label FROM seats").await.as_deref(), Some("newest"));
}
