//! The number of partitions changes while servers run: for a while, two counts read everything.

use futures::StreamExt;
use synchrotron_server::api::nats::PartitionCount;

use crate::world::{World, connect, nats};

fn count(number: u16) -> PartitionCount {
    number.try_into().expect("in range")
}

async fn consumers(world: &World, nats_url: &str) -> Vec<String> {
    let jetstream = async_nats::jetstream::new(connect(nats_url).await);
    let stream = jetstream.get_stream(world.stream("UP")).await.expect("there");
    let mut names: Vec<String> = stream.consumer_names().map(|name| name.expect("lists")).collect().await;
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_partitions_changes_in_a_rolling_restart() {
    let nats = nats().await;
    let mut world = World::start(nats.url(), |_| {}).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], async {
        for number in [4, 3, 1] {
            world.accepts(6).await;
            world.settings.nats.as_mut().expect("given").partitions = count(number);
            world.add_server().await;
            // The old and the new read the same uploads.
            world.accepts(6).await;
            world.servers.remove(0).shutdown().await;
        }
        world.accepts(6).await;
    })
    .await;
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
    let names = consumers(&world, nats.url()).await;
    assert_eq!(names.len(), 1 + 4 + 3, "each count has consumers of its own: {names:?}");
}
