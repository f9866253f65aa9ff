//! Who reads uploads: servers that share partitions, one that is killed, and one that is replaced while everybody writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx_core::query_as::query_as;
use sqlx_postgres::Postgres;
use synchrotron_server::api::nats::PartitionCount;
use synchrotron_testkit::{NatsServer, wait_for};
use uuid::Uuid;

use crate::world::{PATIENCE, World, nats};

fn count(number: u16) -> PartitionCount {
    number.try_into().expect("in range")
}

/// How many partitions each holder has now.
async fn shares(world: &World) -> BTreeMap<Uuid, usize> {
    let sql = "SELECT holder, part FROM synchrotron.leases WHERE expires_at > clock_timestamp()";
    let held = query_as::<Postgres, (Uuid, i32)>(sql).fetch_all(&world.postgres).await.expect("reads");
    let mut shares = BTreeMap::new();
    for (holder, _) in held {
        *shares.entry(holder).or_default() += 1;
    }
    shares
}

async fn shared(world: &World, expected: &[usize]) -> Duration {
    let began = Instant::now();
    let shared = wait_for(format!("shares of {expected:?}"), PATIENCE, async || {
        let mut now: Vec<usize> = shares(world).await.into_values().collect();
        now.sort_unstable();
        (now == expected).then_some(())
    });
    if shared.await.is_err() {
        panic!("the shares are {:?}", shares(world).await);
    }
    began.elapsed()
}

async fn world(partitions: u16) -> (World, NatsServer) {
    let nats = nats().await;
    (World::start(nats.url(), |api| api.partitions = count(partitions)).await, nats)
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_the_partitions_and_the_survivor_takes_what_a_killed_one_had() {
    let (mut world, _nats) = world(4).await;
    shared(&world, &[4]).await;
    world.add_server().await;
    shared(&world, &[2, 2]).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], async {
        world.accepts(8).await;
    })
    .await;
    // Dropped: as a kill, nothing is given back.
    let killed = world.servers.remove(0);
    drop(killed);
    let ((), took) =
        World::under_load(&[&alice, &bob], async { tokio::join!(world.accepts(6), shared(&world, &[4])) }).await;
    eprintln!("the partitions of a killed server were taken over after {took:?}");
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_stands_by_for_the_only_partition() {
    let (mut world, _nats) = world(1).await;
    shared(&world, &[1]).await;
    let first: Vec<Uuid> = shares(&world).await.into_keys().collect();
    world.add_server().await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice], world.accepts(6)).await;
    let holders = async || world.count("lease_holders", "expires_at > clock_timestamp()").await;
    wait_for("both to take part", PATIENCE, async || (holders().await == 2).then_some(())).await.expect("they do");
    let reader = shares(&world).await;
    assert_eq!(reader.len(), 1, "{reader:?}");
    // Whichever it is now, told to stop it gives the partition back before it ends.
    let stopping = world.servers.remove(usize::from(!reader.contains_key(&first[0])));
    World::under_load(&[&alice, &bob], async {
        stopping.shutdown().await;
        let began = Instant::now();
        world.accepts(6).await;
        eprintln!("after a rolling restart uploads went on after {:?}", began.elapsed());
    })
    .await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}
