//! Readers never block the writer, and it never blocks them; neither waits for the copying of the write-ahead log. A driver
//! that has to wait for another writer keeps no other task waiting.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context};
use synchrotron_core::client::ClientError;

use crate::scripted::{Call, Scripted};
use crate::support::{World, alice, note, soon, within};

/// Tells that the slow action runs, and lets it end.
static GATE: Mutex<Option<(Sender<()>, Receiver<()>)>> = Mutex::new(None);

/// Holds its transaction open until the test lets it end.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Slow {}

impl Action for Slow {
    const TAG: &'static str = "slow_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let audience = format!("user:{}", ctx.user_id());
        ctx.insert("notes", &[("text", "slow".into()), ("audience_key", audience.into())])?;
        let (running, go_on) = GATE.lock().expect("no panic").take().expect("the test set it");
        running.send(()).expect("the test waits");
        go_on.recv().expect("the test lets it end");
        Ok(())
    }
}

async fn count(client: &synchrotron_core::client::Client) -> i64 {
    let rows = within(client.query("SELECT count(*) AS count FROM notes", &[])).await;
    rows[0].get("count").expect("a number")
}

#[tokio::test]
async fn a_long_write_transaction_does_not_delay_queries() {
    let world = World::new();
    let client = world.client("alice").await;
    within(client.execute(note("before"))).await;
    let ((running, runs), (let_go, go_on)) = (channel(), channel());
    *GATE.lock().expect("no panic") = Some((running, go_on));
    let writer = client.clone();
    let writing = tokio::spawn(async move { writer.execute(Slow {}).await });
    tokio::task::spawn_blocking(move || runs.recv()).await.expect("no panic").expect("it runs");
    for _ in 0..20 {
        assert_eq!(count(&client).await, 1, "the newest commit, while another is made");
    }
    assert!(!writing.is_finished());
    let_go.send(()).expect("it waits");
    within(async { writing.await.expect("no panic") }).await;
    assert_eq!(count(&client).await, 2);
}

#[tokio::test]
async fn a_slow_reader_does_not_stop_the_writer_and_keeps_its_view() {
    let world = World::new();
    let client = world.client("alice").await;
    within(client.execute(note("before"))).await;
    let slow = Connection::open(world.path("alice")).expect("opens");
    slow.execute_batch("BEGIN").expect("begins");
    let seen = || slow.query_row("SELECT count(*) FROM notes", [], |row| row.get::<_, i64>(0)).expect("reads");
    assert_eq!(seen(), 1);
    for text in 0..50 {
        within(client.execute(note(text.to_string()))).await;
    }
    assert_eq!(seen(), 1, "a reader sees one commit until it ends");
    assert_eq!(count(&client).await, 51);
    slow.execute_batch("COMMIT").expect("ends");
    assert_eq!(seen(), 51);
}

#[tokio::test]
async fn queries_cannot_leave_anything_open_or_write() {
    let world = World::new();
    let client = world.client("alice").await;
    for refused in [
        "BEGIN",
        "SAVEPOINT a",
        "ATTACH 'other.db' AS other",
        "DELETE FROM notes",
        "INSERT INTO tags (id, audience_key) VALUES ('a', 'b')",
        "CREATE TABLE more (id TEXT)",
    ] {
        let error = client.query(refused, &[]).await.expect_err("refused");
        assert!(matches!(error, ClientError::Sql(_)), "{refused}: {error}");
    }
    within(client.execute(note("a"))).await;
    assert_eq!(count(&client).await, 1, "no reader was left in an old transaction");
}

#[tokio::test]
async fn the_log_of_writes_is_copied_beside_them() {
    let world = World::new();
    let client = world.client("alice").await;
    let database = world.path("alice");
    let bytes = |path: &Path| path.metadata().expect("is there").len();
    let before = bytes(&database);
    // Each leaves some 300 kB there, and the writer itself would do it after 16 MB.
    for _note in 0..20 {
        within(client.execute(note("x".repeat(100_000)))).await;
    }
    let log = database.with_file_name(format!("{}-wal", database.file_name().expect("a file").display()));
    assert!((4_000_000..16_000_000).contains(&bytes(&log)), "{}", bytes(&log));
    soon(async {
        while bytes(&database) < before + 4_000_000 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_driver_that_waits_for_another_writer_leaves_the_runtime_to_other_tasks() {
    let world = World::with_history().await;
    let client = world.client("alice").await;
    let other = Connection::open(world.path("alice")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("begins");
    let network = Scripted::new(world.server.connect(alice()));
    client.go_online(Arc::clone(&network) as _);
    soon(network.called(Call::Session, 1)).await;
    // What the session says cannot be written now. The driver gives up after five seconds.
    let (ran, runs) = channel();
    tokio::spawn(async move { ran.send(()) });
    runs.recv_timeout(Duration::from_secs(4)).expect("the only worker is free");
    other.execute_batch("COMMIT").expect("ends");
    within(client.sync_now()).await;
    assert_eq!(count(&client).await, 1);
}
