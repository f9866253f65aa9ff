//! An app's next version opens the file of the one before.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, OpenError};
use synchrotron_core::params;
use synchrotron_core::store::StoreError;

const SEATS: &str = "CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, label TEXT, audience_key TEXT NOT NULL)";
const PRICE: &str = "ALTER TABLE seats ADD COLUMN price INTEGER NOT NULL DEFAULT 5";
const STALLS: &str = "ALTER TABLE seats ADD COLUMN row TEXT; CREATE TABLE halls (name TEXT)";

#[derive(Serialize, Deserialize)]
struct Open {
    label: String,
}

impl Action for Open {
    const TAG: &'static str = "open_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.insert("seats", &[("label", (&self.label).into()), ("audience_key", "user:alice".into())]).map(drop)
    }
}

async fn open(path: &Path, steps: &[&str]) -> Result<Client, OpenError> {
    let builder = Client::builder().database(path).user("alice").schema(SEATS).migrations(steps.iter().copied());
    builder.table(Table::new("seats").identity(["label"])).action::<Open>().open().await
}

async fn columns(client: &Client) -> Vec<String> {
    let rows = client.query("SELECT name FROM pragma_table_info('seats')", params![]).await.expect("reads");
    rows.iter().map(|row| row.get("name").expect("a text")).collect()
}

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("app.db");
    (folder, path)
}

#[tokio::test]
async fn a_new_file_and_an_old_one_get_the_same_columns_once() {
    let (_old, old) = file();
    let first = open(&old, &[]).await.expect("opens");
    first.execute(Open { label: "a".into() }).await.expect("executes");
    drop(first);
    let second = open(&old, &[PRICE]).await.expect("opens");
    let rows = second.query("SELECT price FROM seats", params![]).await.expect("reads");
    assert_eq!(rows[0].get::<i64>("price"), Ok(5), "the rows that are there have the default");
    drop(second);
    let (_new, new) = file();
    for path in [&old, &new, &old, &new] {
        let client = open(path, &[PRICE, STALLS]).await.expect("opens");
        assert_eq!(columns(&client).await, ["id", "label", "audience_key", "price", "row"], "{path:?}");
        client.execute(Open { label: "b".into() }).await.expect("what is new is captured");
    }
}

#[tokio::test]
async fn a_step_that_fails_leaves_nothing_and_is_named() {
    let (_folder, path) = file();
    drop(open(&path, &[PRICE]).await.expect("opens"));
    let failing = [PRICE, STALLS, "CREATE TABLE more (name TEXT); ALTER TABLE nowhere ADD COLUMN x"];
    let error = open(&path, &failing).await.expect_err("there is no such table");
    let OpenError::Store(StoreError::Migration { number: 3, .. }) = &error else { panic!("{error:?}") };
    assert!(error.to_string().contains("migration 3") && error.to_string().contains("nowhere"), "{error}");
    let client = open(&path, &[PRICE]).await.expect("opens as before");
    assert_eq!(columns(&client).await, ["id", "label", "audience_key", "price"]);
    let tables = "SELECT name FROM sqlite_schema WHERE name IN ('halls', 'more')";
    assert!(client.query(tables, params![]).await.expect("reads").is_empty());
}

#[tokio::test]
async fn a_file_of_a_newer_app_is_left_alone() {
    let (_folder, path) = file();
    drop(open(&path, &[PRICE, STALLS]).await.expect("opens"));
    for steps in [&[PRICE][..], &[]] {
        let error = open(&path, steps).await.expect_err("it is newer");
        let OpenError::Store(StoreError::NewerApp { found: 2, known }) = error else { panic!("{error:?}") };
        assert_eq!(known as usize, steps.len());
    }
    open(&path, &[PRICE, STALLS]).await.expect("as it was");
}

/// What a step did to synced rows would reach nobody.
#[tokio::test]
async fn a_step_writes_no_synced_rows() {
    let (_folder, path) = file();
    let client = open(&path, &[]).await.expect("opens");
    client.execute(Open { label: "a".into() }).await.expect("executes");
    drop(client);
    let error = open(&path, &["UPDATE seats SET label = 'b'"]).await.expect_err("no action");
    assert!(matches!(error, OpenError::Store(StoreError::Migration { number: 1, .. })), "{error}");
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let (folder, path) = file();
    let nowhere = folder.path().join("no folder").join("app.db");
    let error = open(&nowhere, &[]).await.expect_err("there is no folder");
    let OpenError::Beside { path: beside, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*beside, folder.path().join("no folder").join("app.db.device"));
    assert!(error.to_string().contains("no folder"), "{error}");

    let builder = Client::builder().database(&path).user("alice").schema(SEATS);
    let error =
        builder.table(Table::new("seats").identity(["label", "nope"])).open().await.expect_err("no column nope");
    assert!(
        matches!(&error, OpenError::Identity { table, column } if table == "seats" && column == "nope"),
        "{error:?}"
    );
}
