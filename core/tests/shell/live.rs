//! The change feed, `watch` and `live_query`.

use std::sync::Arc;

use futures::FutureExt;
use synchrotron_core::client::{Change, Client, ClientError, LiveQuery};
use synchrotron_core::params;

use crate::support::{World, note, soon, tag, within};

async fn texts(query: &mut LiveQuery) -> Vec<String> {
    let rows = soon(query.next()).await.expect("the client lives").expect("reads");
    rows.iter().map(|row| row.get("text").expect("a text")).collect()
}

/// Waits until this live query has seen every commit before now: a commit of its own comes after them.
async fn caught_up(client: &Client, query: &mut LiveQuery, text: &str) -> Vec<String> {
    within(client.execute(note(text))).await;
    texts(query).await
}

#[tokio::test]
async fn watch_yields_once_for_commits_in_quick_succession_and_never_for_other_tables() {
    let world = World::new();
    let client = world.client("alice").await;
    let mut notes = client.watch(["notes"]).expect("a table");
    let mut both = client.watch(["notes", "tags"]).expect("tables");
    within(client.execute(tag("t"))).await;
    assert!(notes.next().now_or_never().is_none(), "a tag is no note");
    assert_eq!(soon(both.next()).await, Some(()));
    for text in ["a", "b", "c"] {
        within(client.execute(note(text))).await;
    }
    assert_eq!(soon(notes.next()).await, Some(()));
    assert!(notes.next().now_or_never().is_none(), "three commits, one item");
    drop(client);
    assert_eq!(soon(notes.next()).await, None, "it ends with the client");
}

#[tokio::test]
async fn watching_a_table_that_is_not_synced_is_an_error_that_names_it() {
    let world = World::new();
    let client = world.client("alice").await;
    for table in ["loud_notes", "lengths", "nothing"] {
        let error = client.watch([table]).expect_err("not tracked");
        assert!(matches!(&error, ClientError::NotTracked { table: named } if named == table), "{error}");
    }
}

#[tokio::test]
async fn a_live_query_yields_at_once_and_then_only_when_its_rows_differ() {
    let world = World::new();
    let client = world.client("alice").await;
    let mut a = client.live_query("SELECT text FROM notes WHERE text < ? ORDER BY text", params!["m"]);
    assert_eq!(texts(&mut a).await, Vec::<String>::new());
    within(client.execute(tag("b"))).await;
    within(client.execute(note("z"))).await;
    assert_eq!(caught_up(&client, &mut a, "c").await, ["c"], "neither the tag nor the other note was shown");
    assert_eq!(caught_up(&client, &mut a, "a").await, ["a", "c"]);
}

#[tokio::test]
async fn a_live_query_follows_views_triggers_and_what_another_device_did() {
    let world = World::new();
    let (client, other) = (world.client("alice").await, world.client("phone").await);
    let mut view = client.live_query("SELECT text FROM loud_notes", &[]);
    let mut derived = client.live_query("SELECT 'length ' || length AS text FROM lengths WHERE length = 3", &[]);
    let mut count = client.live_query("SELECT '' || count(*) AS text FROM notes", &[]);
    assert_eq!(texts(&mut view).await, Vec::<String>::new());
    assert_eq!(texts(&mut derived).await, Vec::<String>::new());
    assert_eq!(texts(&mut count).await, ["0"]);
    client.go_online(Arc::new(world.server.connect(crate::support::alice())));
    other.go_online(Arc::new(world.server.connect(crate::support::alice())));
    within(other.sync_now()).await;
    within(other.execute(note("hi!"))).await;
    assert_eq!(texts(&mut view).await, ["hi!"]);
    assert_eq!(texts(&mut derived).await, ["length 3"]);
    assert_eq!(texts(&mut count).await, ["1"]);
}

#[tokio::test]
async fn a_query_that_fails_says_so_once_and_a_live_one_goes_on() {
    let world = World::new();
    let client = world.client("alice").await;
    let mut wrong = client.live_query("SELECT text FROM nowhere", &[]);
    assert!(matches!(soon(wrong.next()).await, Some(Err(ClientError::Sql(_)))));
    // Before there is a note, nothing is divided.
    let mut fails_later = client.live_query("SELECT json(text) AS text FROM notes ORDER BY text", &[]);
    assert_eq!(texts(&mut fails_later).await, Vec::<String>::new());
    within(client.execute(note("no json"))).await;
    assert!(matches!(soon(fails_later.next()).await, Some(Err(ClientError::Sql(_)))));
    within(client.execute(note("neither"))).await;
    assert!(wrong.next().now_or_never().is_none(), "the same error is not told twice");
    drop(client);
    assert!(soon(fails_later.next()).await.is_none());
}

#[tokio::test]
async fn an_execution_that_nobody_waits_for_is_still_told_and_counted() {
    let world = World::new();
    let client = world.client("alice").await;
    let mut changes = client.changes();
    let mut given_up = Box::pin(client.execute(note("a")));
    // It was begun, on another thread; nobody asks what came of it.
    let _begun = (&mut given_up).now_or_never();
    drop(given_up);
    let change = soon(changes.recv()).await.expect("the client lives");
    assert!(matches!(&*change, Change::Committed(committed) if committed.rows.len() == 1), "{change:?}");
    assert_eq!(soon(client.status().wait_for(|status| status.pending == 1)).await.expect("lives").pending, 1);
}
