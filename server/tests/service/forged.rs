//! Uploads that lie, or that contradict themselves.

use synchrotron_core::model::{ActionArgs, ActionTag, Effect, Hlc, Patch, RecordBody, Value};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::fixture::{Theatre, columns, hold, note, patch, rejected, remove, seat};

fn in_audience(row: &str, key: &str) -> Patch {
    patch("seats", row, key, Effect::Insert(columns([("label", "x".into())])))
}

/// RLS-02
#[tokio::test]
async fn a_foreign_audience_is_denied_and_nothing_is_written() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let outcome = alice.upload(vec![alice.action(10, vec![seat("A1"), in_audience("Q1", "project:q")])]).await;
    let (kind, reason) = rejected(outcome);
    assert_eq!(kind, RejectionKind::Denied);
    assert!(reason.contains("row 1 (table seats)"), "{reason}");
    let (kind, _) = rejected(alice.upload(vec![alice.action(11, vec![note("n", "bob")])]).await);
    assert_eq!(kind, RejectionKind::Denied);
    theatre.assert_untouched().await;
    let others = "synchrotron.audience_heads WHERE audience_key NOT IN (SELECT synchrotron.audiences_of('alice'))";
    assert_eq!(theatre.count(others).await, 0, "not even a head is made");
}

#[tokio::test]
async fn the_label_must_be_the_rows_real_audience() {
    let theatre = Theatre::open().await;
    let mut bob = theatre.device("bob");
    bob.sync(vec![bob.action(10, vec![seat("P1"), in_audience("Q1", "project:q"), note("n", "bob")])]).await;
    let relabelled = |effect| patch("seats", "Q1", "project:p", effect);
    let moved = patch("notes", "n", "user:bob", Effect::Update(columns([("owner", "alice".into())])));
    let cases = [
        relabelled(Effect::Update(columns([("holder", "x".into())]))),
        relabelled(Effect::Delete),
        relabelled(Effect::Insert(columns([]))),
        // Postgres computes another audience than the patch names.
        patch("notes", "m", "project:p", Effect::Insert(columns([("owner", "bob".into())]))),
        patch("notes", "k", "user:bob", Effect::Insert(columns([("owner", Value::Null)]))),
    ];
    for case in cases {
        let (kind, reason) = rejected(bob.upload(vec![bob.action(20, vec![case.clone()])]).await);
        let denied_by_policy = case.table.as_str() == "notes" && kind == RejectionKind::Denied;
        assert!(kind == RejectionKind::AudienceMismatch || denied_by_policy, "{case:?}: {kind:?} {reason}");
    }
    let (kind, _) = rejected(bob.upload(vec![bob.action(20, vec![moved])]).await);
    assert!(matches!(kind, RejectionKind::Denied | RejectionKind::AudienceMismatch), "{kind:?}");
    // Late and gone rows are no way around it.
    let (kind, _) = rejected(bob.upload(vec![bob.action(5, vec![relabelled(Effect::Insert(columns([])))])]).await);
    assert_eq!(kind, RejectionKind::AudienceMismatch);
    bob.sync(vec![bob.action(30, vec![patch("seats", "Q1", "project:q", Effect::Delete)])]).await;
    let (kind, _) = rejected(bob.upload(vec![bob.action(40, vec![relabelled(Effect::Delete)])]).await);
    assert_eq!(kind, RejectionKind::AudienceMismatch);
}

#[tokio::test]
async fn a_generated_audience_that_moves_is_a_mismatch() {
    let theatre =
        Theatre::open_with("DROP POLICY owners ON notes; CREATE POLICY all_of_it ON notes USING (true)", &[], |_| {})
            .await;
    let mut bob = theatre.device("bob");
    bob.sync(vec![bob.action(10, vec![note("n", "bob")])]).await;
    let moved = patch("notes", "n", "user:bob", Effect::Update(columns([("owner", "alice".into())])));
    for at in [5, 20] {
        let (kind, _) = rejected(bob.upload(vec![bob.action(at, vec![moved.clone()])]).await);
        assert_eq!(kind, RejectionKind::AudienceMismatch, "at {at}");
    }
    let forged = patch("notes", "m", "user:bob", Effect::Insert(columns([("owner", "alice".into())])));
    let (kind, _) = rejected(bob.upload(vec![bob.action(30, vec![forged])]).await);
    assert_eq!(kind, RejectionKind::AudienceMismatch);
}

#[tokio::test]
async fn gone_is_fine_and_hidden_is_denied() {
    let theatre = Theatre::open_with(
        "CREATE POLICY unlocked ON seats AS RESTRICTIVE USING (label <> 'locked') WITH CHECK (true);
         INSERT INTO seats VALUES ('L', 'locked', NULL, 'project:p')",
        &[],
        |_| {},
    )
    .await;
    let alice = theatre.device("alice");
    for row in [hold("L", Some("alice")), remove("L"), seat("L")] {
        let (kind, _) = rejected(alice.upload(vec![alice.action(10, vec![row])]).await);
        assert_eq!(kind, RejectionKind::Denied);
    }
    let was = alice.action(5, vec![seat("gone"), remove("gone")]);
    let gone = alice.action(10, vec![hold("gone", Some("alice")), remove("gone")]);
    let gone = alice.upload(vec![was, gone]).await;
    assert!(matches!(gone, Outcome::Accepted { .. }), "{gone:?}");
}

#[tokio::test]
async fn a_removal_without_a_policy_for_it_is_denied() {
    let theatre = Theatre::open_with(
        "DROP POLICY members ON seats; CREATE POLICY see ON seats FOR SELECT USING (true);
         CREATE POLICY make ON seats FOR INSERT WITH CHECK (true)",
        &[],
        |_| {},
    )
    .await;
    let alice = theatre.device("alice");
    let outcome = alice.upload(vec![alice.action(10, vec![seat("A1")]), alice.action(20, vec![remove("A1")])]).await;
    assert_eq!(rejected(outcome).0, RejectionKind::Denied);
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn only_tracked_tables_and_their_real_columns() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let insert =
        |table: &str, column: &str| patch(table, "r", "project:p", Effect::Insert(columns([(column, "x".into())])));
    let cases = [
        (insert("project_members", "user_id"), RejectionKind::UnknownTable),
        (insert("action_records", "tag"), RejectionKind::UnknownTable),
        (insert("synchrotron.clients", "user_id"), RejectionKind::UnknownTable),
        (insert("seats; DROP TABLE seats", "label"), RejectionKind::UnknownTable),
        (insert("seats", "colour"), RejectionKind::UnknownColumn),
        (insert("seats", "label\" = 'x', \"holder"), RejectionKind::UnknownColumn),
        (insert("seats", "id"), RejectionKind::UnknownColumn),
        (insert("seats", "audience_key"), RejectionKind::UnknownColumn),
        (insert("seats", "ctid"), RejectionKind::UnknownColumn),
    ];
    for (row, expected) in cases {
        let (kind, reason) = rejected(alice.upload(vec![alice.action(10, vec![row])]).await);
        assert_eq!(kind, expected, "{reason}");
    }
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn records_that_contradict_themselves() {
    let theatre = Theatre::open_with("", &[], |settings| settings.max_record_bytes = 1_000).await;
    let alice = theatre.device("alice");
    let mut shuffled = alice.action(10, vec![seat("A1"), seat("A2")]);
    shuffled.rows.swap(0, 1);
    let mut negative = alice.action(10, vec![]);
    negative.clock = Hlc::from_packed(-1);
    let mut no_map = alice.action(10, vec![]);
    let args: ActionArgs = rmp_serde::from_slice(&[0xc4, 1, 0x05]).expect("bytes");
    no_map.body = RecordBody::Action { tag: ActionTag::new("t").expect("ok"), args };
    let large = Effect::Insert(columns([("label", "x".repeat(2_000).into())]));
    let large = alice.action(10, vec![patch("seats", "A1", "project:p", large)]);
    let cases = [
        (shuffled, RejectionKind::Malformed),
        (negative, RejectionKind::Malformed),
        (no_map, RejectionKind::Malformed),
        (large, RejectionKind::TooLarge),
    ];
    for (record, expected) in cases {
        let (kind, reason) = rejected(alice.upload(vec![record]).await);
        assert_eq!(kind, expected, "{reason}");
    }
    theatre.assert_untouched().await;
}

/// An action may make a project and its first membership in one, if the app's policies let it.
#[tokio::test]
async fn an_audience_can_be_founded_but_not_claimed() {
    let members = "CREATE TABLE members (id text PRIMARY KEY, user_id text, audience_key text);
        ALTER TABLE members ENABLE ROW LEVEL SECURITY;
        CREATE POLICY self ON members USING (user_id = synchrotron_user_id());
        CREATE OR REPLACE VIEW synchrotron.user_audiences AS
            SELECT user_id, 'project:' || project_id AS audience_key FROM project_members
            UNION ALL SELECT user_id, audience_key FROM members;
        GRANT SELECT, INSERT ON members TO synchrotron_user;";
    let members = members.replace("synchrotron_user_id()", "current_setting('synchrotron.user_id', true)");
    let theatre = Theatre::open_with(&members, &["members"], |_| {}).await;
    let (alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    let join = |user: &str, row: &str, key: &str| {
        patch("members", row, key, Effect::Insert(columns([("user_id", user.into())])))
    };
    let found = alice.action(10, vec![join("alice", "m1", "project:new"), in_audience("N1", "project:new")]);
    let outcome = alice.upload(vec![found]).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    let claim = bob.action(20, vec![join("bob", "m2", "project:new")]);
    assert_eq!(rejected(bob.upload(vec![claim]).await).0, RejectionKind::Denied);
}
