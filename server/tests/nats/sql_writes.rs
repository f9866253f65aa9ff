//! Plain SQL writes and real devices: what a job writes to Postgres is in every device's own database, and what they did
//! meanwhile keeps its place.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::query_scalar::query_scalar;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::Client;
use synchrotron_testkit::wait_for;

use crate::stack::{PATIENCE, Stack, token};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS seats \
    (id TEXT PRIMARY KEY, label TEXT, holder TEXT, audience_key TEXT NOT NULL)";
const ROWS: &str = "SELECT group_concat(id || ' ' || holder, ', ') AS shown FROM (SELECT * FROM seats ORDER BY id)";

/// Takes a seat that is free.
#[derive(Serialize, Deserialize)]
struct Book {
    seat: String,
}

impl Action for Book {
    const TAG: &'static str = "book_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let me = ctx.user_id().to_string();
        let free = "UPDATE seats SET holder = ? WHERE id = ? AND holder = 'nobody'";
        ctx.execute(free, &[me.into(), (&self.seat).into()]).map(drop)
    }
}

async fn device(stack: &Stack, folder: &Path, user: &str) -> Client {
    stack.allow(user, "project:1").await;
    let opened = Client::builder()
        .database(folder.join(user))
        .user(user)
        .schema(SCHEMA)
        .table(Table::new("seats").identity(["label"]))
        .action::<Book>()
        .open();
    let client = opened.await.expect("opens");
    go_online(stack, &client).await;
    client
}

async fn go_online(stack: &Stack, client: &Client) {
    let user = client.user_id().as_str();
    client.go_online(Arc::new(stack.network(user, client.client_id(), token(user, 3_600)).await));
}

/// Waits until the device has these rows by itself.
async fn comes_to_have(client: &Client, expected: &str) {
    let mut seen = String::new();
    let same = wait_for("rows", PATIENCE, async || {
        let rows = client.query(ROWS, &[]).await.expect("reads");
        seen = rows[0].get::<Option<String>>("shown").expect("text").unwrap_or_default();
        (seen == expected).then_some(())
    });
    let same = same.await;
    assert!(same.is_ok(), "{}: {seen:?} instead of {expected:?}", client.user_id());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_and_devices_write_the_same_rows() {
    let stack = Stack::start().await;
    let mut job = PgConnection::connect(&stack.database).await.expect("connects");
    let folder = tempfile::tempdir().expect("a folder");
    let (alice, bob) = (device(&stack, folder.path(), "alice").await, device(&stack, folder.path(), "bob").await);
    let made = "INSERT INTO seats SELECT 'S' || n, n::text, 'nobody', 'project:1' FROM generate_series(1, 3) n";
    job.execute(made).await.expect("inserts");
    for client in [&alice, &bob] {
        comes_to_have(client, "S1 nobody, S2 nobody, S3 nobody").await;
    }

    // Alice books S1 and S2 where no network is; then the desk gives S1 away.
    alice.go_offline();
    for seat in ["S1", "S2"] {
        alice.execute(Book { seat: seat.to_owned() }).await.expect("books");
    }
    job.execute("UPDATE seats SET holder = 'desk' WHERE id = 'S1'").await.expect("updates");
    comes_to_have(&bob, "S1 desk, S2 nobody, S3 nobody").await;
    go_online(&stack, &alice).await;
    for client in [&alice, &bob] {
        comes_to_have(client, "S1 desk, S2 alice, S3 nobody").await;
    }
    job.execute("DELETE FROM seats WHERE id = 'S2'").await.expect("deletes");
    bob.execute(Book { seat: "S3".to_owned() }).await.expect("books");
    for client in [&alice, &bob] {
        comes_to_have(client, "S1 desk, S3 bob").await;
    }
    let canonical = "SELECT string_agg(id || ' ' || holder, ', ' ORDER BY id) FROM seats";
    let canonical: Option<String> = query_scalar::<Postgres, _>(canonical).fetch_one(&mut job).await.expect("reads");
    assert_eq!(canonical.as_deref(), Some("S1 desk, S3 bob"));
}
