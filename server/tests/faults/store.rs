//! nats-server killed, and its store deleted, while everybody writes.

use std::time::Duration;

use rand::Rng;

use crate::world::{World, nats, random};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_again_and_again_loses_nothing() {
    let mut random = random("killed_again");
    let nats = nats().await;
    let world = World::start(nats.url(), |_| {}).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], async {
        for _ in 0..3 {
            world.accepts(random.random_range(3..12)).await;
            nats.kill().await.expect("killed");
            tokio::time::sleep(Duration::from_millis(random.random_range(0..300))).await;
            nats.restart().await.expect("started");
        }
    })
    .await;
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_deleted_under_load_loses_nothing() {
    let nats = nats().await;
    let Some(store) = nats.store_dir() else { return };
    let world = World::start(nats.url(), |_| {}).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], async {
        for round in 0..2 {
            world.accepts(8).await;
            // Beneath the feet of the server, which notices when it likes.
            std::fs::remove_dir_all(&store).expect("deleted");
            alice.write(round).await;
            nats.kill().await.expect("killed");
            // It may have written some of it again before it died.
            let _empty_already = std::fs::remove_dir_all(&store);
            nats.restart().await.expect("started, with nothing");
        }
        world.accepts(8).await;
    })
    .await;
    world.live_again(&bob, &alice).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}
