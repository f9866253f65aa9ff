//! What is fetched while something is pending is integrated in few steps, and none of it is lost to an error.

use std::sync::Arc;

use synchrotron_core::client::{Change, Client, ClientError, SyncError};
use synchrotron_core::network::memory::PageBounds;

use crate::scripted::{Call, Fault, Scripted};
use crate::support::{World, alice, note, within};

/// A client that was offline while another device of hers wrote five notes, which come one to a page.
async fn five_pages_behind() -> (World, Client) {
    let world = World::new();
    world.server.set_page_bounds(PageBounds { records_max: 1, ..PageBounds::default() });
    let client = world.client("alice").await;
    client.go_online(Arc::new(world.server.connect(alice())));
    within(client.sync_now()).await;
    client.go_offline();
    let other = world.client("other").await;
    for text in 0..5 {
        within(other.execute(note(text.to_string()))).await;
    }
    other.go_online(Arc::new(world.server.connect(alice())));
    within(other.sync_now()).await;
    (world, client)
}

async fn notes(client: &Client) -> usize {
    within(client.query("SELECT id FROM notes", &[])).await.len()
}

/// The commits that the client told of since.
fn commits(changes: &mut tokio::sync::broadcast::Receiver<Arc<Change>>) -> usize {
    let told = std::iter::from_fn(|| changes.try_recv().ok());
    told.filter(|change| matches!(&**change, Change::Committed(committed) if !committed.rows.is_empty())).count()
}

#[tokio::test]
async fn with_something_pending_many_pages_are_one_step() {
    let (world, client) = five_pages_behind().await;
    within(client.execute(note("pending"))).await;
    let mut changes = client.changes();
    let network = Scripted::new(world.server.connect(alice()));
    client.go_online(Arc::clone(&network) as _);
    within(client.sync_now()).await;
    assert!(network.count(Call::Fetch) >= 5, "they were pages");
    assert_eq!(commits(&mut changes), 1, "and one commit");
    assert_eq!((notes(&client).await, world.texts()), (6, 6));
}

#[tokio::test]
async fn with_nothing_pending_each_page_is_a_step() {
    let (world, client) = five_pages_behind().await;
    let mut changes = client.changes();
    client.go_online(Arc::new(world.server.connect(alice())));
    within(client.sync_now()).await;
    assert_eq!((commits(&mut changes), notes(&client).await), (5, 5));
}

#[tokio::test]
async fn pages_that_came_before_an_error_are_integrated() {
    let (world, client) = five_pages_behind().await;
    within(client.execute(note("pending"))).await;
    let network = Scripted::new(world.server.connect(alice()));
    network.fault(Call::Fetch, Fault::FailFrom(3));
    client.go_online(Arc::clone(&network) as _);
    let failed = client.sync_now().await.expect_err("the third page does not come");
    assert!(matches!(failed, ClientError::Sync(SyncError::Network(_))), "{failed}");
    assert_eq!(notes(&client).await, 3, "two of theirs and the pending one");
    network.mend();
    within(client.sync_now()).await;
    assert_eq!((notes(&client).await, world.texts()), (6, 6));
}
