//! Work that the server's schema cannot take yet: it is shown, told, tried again by itself, and holds up nothing else.

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::client::{Client, ClientError, Held, SyncError, Timing};
use synchrotron_core::wire::RejectionKind;

use crate::scripted::{Call, Fault, Scripted};
use crate::support::{World, alice, note, open, soon, tag, within};

const HEAD_CHECK: Duration = Duration::from_secs(20);

/// A device with two tags and a note, online with a server that knows no tags.
async fn ahead(world: &World) -> (Client, Arc<Scripted>) {
    let client = open(&world.path("alice"), Timing { head_check: HEAD_CHECK, ..Timing::default() }).await;
    within(client.execute(tag("a"))).await;
    within(client.execute(note("n"))).await;
    within(client.execute(tag("b"))).await;
    let network = Scripted::new(world.server.connect(alice()));
    network.fault(Call::Upload, Fault::NoTags);
    client.go_online(Arc::clone(&network) as _);
    (client, network)
}

fn two_tags() -> Vec<Held> {
    vec![Held { kind: RejectionKind::UnknownTable, reason: "table tags is not tracked".to_owned(), actions: 2 }]
}

#[tokio::test]
async fn u17_work_that_the_servers_schema_cannot_take_is_told_to_who_syncs_and_goes_after_the_migration() {
    let world = World::new();
    let (client, network) = ahead(&world).await;
    let told = soon(client.sync_now()).await.expect_err("two tags stay");
    assert!(matches!(&told, ClientError::Sync(SyncError::Held { held }) if *held == two_tags()), "{told}");
    assert_eq!(told.to_string(), "the server's schema cannot take 2 actions yet: table tags is not tracked");
    {
        let status = client.status();
        let status = status.borrow();
        assert_eq!((status.pending, status.quarantined, &status.held), (2, 0, &two_tags()));
        assert!(status.connection.carrier().is_some() && status.last_error.is_none(), "nothing else is wrong");
    }
    assert_eq!(world.texts(), 1, "the note went");
    network.mend();
    within(client.sync_now()).await;
    assert_eq!((client.status().borrow().pending, client.status().borrow().held.len()), (0, 0));
    assert_eq!(world.texts(), 3);
}

#[tokio::test(start_paused = true)]
async fn u17_held_work_is_tried_again_by_itself_no_more_often_than_heads_are_checked() {
    let world = World::new();
    let (client, network) = ahead(&world).await;
    let mut status = client.status();
    let shown = status.wait_for(|status| status.held == two_tags() && status.last_sync_ms.is_some());
    tokio::time::timeout(HEAD_CHECK / 2, shown).await.expect("shown").expect("the client lives");
    let before = network.count(Call::Upload);
    tokio::time::sleep(HEAD_CHECK * 6).await;
    let tries = network.count(Call::Upload) - before;
    assert!((3..=6).contains(&tries), "one upload for both, {tries} times");
    network.mend();
    let gone = status.wait_for(|status| status.pending == 0 && status.held.is_empty());
    tokio::time::timeout(HEAD_CHECK * 2, gone).await.expect("by itself").expect("the client lives");
    assert_eq!(world.texts(), 3);
}
