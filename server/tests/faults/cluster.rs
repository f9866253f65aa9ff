//! Three nodes, of which some are killed at random.

use std::time::Duration;

use rand::Rng;
use synchrotron_testkit::{NatsCluster, NatsOptions, ServiceError};

use crate::world::{World, conf, random};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_of_a_cluster_die_at_random_and_nothing_is_lost() {
    let mut random = random("nodes_of_a_cluster");
    let cluster = match NatsCluster::start(3, &NatsOptions::default().with_config(conf())).await {
        Ok(cluster) => cluster,
        Err(ServiceError::NotOurs { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let mut world = World::start(&cluster.url(), |api| api.replicas = 3).await;
    world.add_server().await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], async {
        for _ in 0..2 {
            world.accepts(random.random_range(3..10)).await;
            let first = random.random_range(0..3);
            cluster.nodes()[first].kill().await.expect("killed");
            // Now and then there is no majority left for a while.
            let second = (first + random.random_range(1..3)) % 3;
            let without_majority = random.random_bool(0.4);
            if without_majority {
                cluster.nodes()[second].kill().await.expect("killed");
                tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
                cluster.nodes()[second].restart().await.expect("started");
            }
            // Two of three carry on.
            world.accepts(5).await;
            cluster.nodes()[first].restart().await.expect("started");
            cluster.wait_until_ready().await.expect("all are back");
        }
    })
    .await;
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}
