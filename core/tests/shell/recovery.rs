//! Copies of a database, sign-out, the doctor, and the server's rows again: as an app meets them.

use std::path::Path;
use std::sync::Arc;

use rusqlite::Connection;
use synchrotron_core::client::{Client, OpenError, Status};
use synchrotron_core::engine::{Finding, Unsent};
use synchrotron_core::model::UserId;
use synchrotron_core::store::{Fate, QuarantineKind};

use crate::support::{World, alice, note, open, open_for, quick, soon, within};

fn copy(from: &Path, to: &Path) {
    let source = Connection::open(from).expect("opens");
    source.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("checkpoints");
    std::fs::copy(from, to).expect("copies");
}

async fn synced(world: &World, client: &Client) {
    client.go_online(Arc::new(world.server.connect(alice())));
    within(client.sync_now()).await;
}

async fn notes(client: &Client) -> Vec<String> {
    let rows = within(client.query("SELECT text FROM notes ORDER BY text", &[])).await;
    rows.iter().map(|row| row.get("text").expect("text")).collect()
}

#[tokio::test]
async fn u27_a_copied_database_is_another_device_and_nothing_is_lost_or_doubled() {
    let world = World::new();
    let (first, second) = (world.path("first"), world.path("second"));
    let original = open(&first, quick()).await;
    synced(&world, &original).await;
    original.go_offline();
    within(original.execute(note("pending in both"))).await;
    copy(&first, &second);
    let restored = open(&second, quick()).await;
    assert_ne!(restored.client_id(), original.client_id());
    within(original.execute(note("of the original"))).await;
    within(restored.execute(note("of the copy"))).await;
    for client in [&original, &restored, &original, &restored] {
        synced(&world, client).await;
    }
    for client in [&original, &restored] {
        within(client.sync_now()).await;
        assert_eq!(notes(client).await, ["of the copy", "of the original", "pending in both"]);
        assert!(within(client.check()).await.is_sound());
        let comparison = within(client.compare_with(&world.server.connect(alice()))).await;
        assert!(comparison.different.is_empty() && !comparison.equal.is_empty(), "{comparison:?}");
    }
    drop((original, restored));
    let reopened = open(&second, quick()).await;
    assert_eq!(notes(&reopened).await.len(), 3, "a settled copy stays the device that it became");
}

#[tokio::test]
async fn u13_another_user_signs_in_on_the_same_database() {
    let world = World::new();
    let path = world.path("app");
    let first = open(&path, quick()).await;
    within(first.execute(note("secret"))).await;
    let foreign = soon(open_for("bob", &path, quick())).await.expect_err("somebody is signed in");
    assert!(matches!(foreign, OpenError::ForeignUser { .. }), "{foreign}");
    soon(first.sign_out(Unsent::Keep)).await.expect_err("the note is not sent yet");
    within(first.sign_out(Unsent::Discard)).await;
    soon(first.execute(note("late"))).await.expect_err("nobody is signed in");
    let second = soon(open_for("bob", &path, quick())).await.expect("opens");
    assert_eq!(notes(&second).await, Vec::<String>::new());
    assert_eq!(second.status().borrow().pending, 0);
    assert_ne!(second.client_id(), first.client_id());
    soon(first.execute(note("later"))).await.expect_err("somebody else is signed in");
    assert_eq!((notes(&second).await, second.status().borrow().pending), (Vec::new(), 0));
}

#[tokio::test]
async fn u13_a_process_whose_user_was_signed_out_by_another_one_leaves_the_lead_to_the_next_user() {
    let world = World::new();
    let path = world.path("app");
    let (leader, other) = (open(&path, quick()).await, open(&path, quick()).await);
    synced(&world, &leader).await;
    within(other.sign_out(Unsent::Keep)).await;
    let bob = UserId::new("bob").expect("an id");
    let second = soon(open_for("bob", &path, quick())).await.expect("opens");
    second.go_online(Arc::new(world.server.connect(bob)));
    let online = |status: &Status| status.connection.carrier().is_some();
    soon(second.status().wait_for(online)).await.expect("it leads");
}

#[tokio::test]
async fn doc_a_damaged_row_is_found_and_taken_from_the_server_again() {
    let world = World::new();
    let path = world.path("app");
    let client = open(&path, quick()).await;
    client.go_online(Arc::new(world.server.connect(alice())));
    let mut note = within(client.execute(note("right"))).await;
    assert_eq!(within(note.confirmed()).await, Fate::Confirmed);
    Connection::open(&path)
        .expect("opens")
        .execute_batch("DROP TRIGGER synchrotron_update_notes; UPDATE notes SET text = 'wrong'")
        .expect("somebody who means it can");
    let comparison = within(client.compare_with(&world.server.connect(alice()))).await;
    assert!(comparison.different.is_empty(), "history is sound: {comparison:?}");
    let report = within(client.check()).await;
    assert!(matches!(&report.findings[..], [Finding::RowDiffers { .. }]), "{report:?}");
    within(client.sync_now()).await;
    assert_eq!(notes(&client).await, ["right"]);
    assert!(within(client.check()).await.is_sound());
}

#[tokio::test]
async fn hr_rb_pending_work_is_kept_by_a_rebase_and_quarantined_by_a_hard_resync() {
    let world = World::new();
    let client = world.client("app").await;
    synced(&world, &client).await;
    client.go_offline();
    let mut kept = within(client.execute(note("kept"))).await;
    within(client.rebase()).await;
    client.go_online(Arc::new(world.server.connect(alice())));
    assert_eq!(within(kept.confirmed()).await, Fate::Confirmed);
    client.go_offline();
    let dropped = within(client.execute(note("dropped"))).await;
    within(client.hard_resync()).await;
    synced(&world, &client).await;
    assert_eq!(notes(&client).await, ["kept"]);
    let quarantined = within(client.quarantined()).await;
    assert_eq!(quarantined.iter().map(|q| (q.id, q.kind)).collect::<Vec<_>>(), [(dropped.id, QuarantineKind::Dropped)]);
}
