//! Lines that stall, are slow, and break, also in the middle of a message; and a device that does not read.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use synchrotron_testkit::{LineState, NatsServer, Proxy};

use crate::world::{World, connect, nats, nats_with, random};

async fn line_to(nats: &NatsServer) -> Proxy {
    let server = SocketAddr::from((Ipv4Addr::LOCALHOST, nats.port().expect("ours")));
    Proxy::start(server).await.expect("a port")
}

fn url(line: &Proxy) -> String {
    format!("nats://{}", line.address())
}

fn disturb(line: &Proxy, random: &mut ChaCha8Rng) {
    match random.random_range(0..5) {
        0 => line.set(LineState::Stalled),
        1 => line.set(LineState::Cut),
        2 => line.set(LineState::Slow(Duration::from_millis(random.random_range(1..40)))),
        3 => line.break_after(random.random_range(0..4_000)),
        _ => line.set(LineState::Clear),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_that_stall_and_break_lose_nothing() {
    let mut random = random("stall_and_break");
    let nats = nats().await;
    let lines = [line_to(&nats).await, line_to(&nats).await, line_to(&nats).await];
    let world = World::start(&url(&lines[0]), |_| {}).await;
    let alice = world.device_at("alice", &url(&lines[1])).await;
    let bob = world.device_at("bob", &url(&lines[2])).await;
    World::under_load(&[&alice, &bob], async {
        world.accepts(5).await;
        for _ in 0..10 {
            disturb(&lines[random.random_range(0..lines.len())], &mut random);
            tokio::time::sleep(Duration::from_millis(random.random_range(50..500))).await;
        }
    })
    .await;
    lines.iter().for_each(|line| line.set(LineState::Clear));
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}

/// NATS gives a connection up that does not read what it is sent; its device comes back and fetches.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_consumer_is_dropped_and_catches_up() {
    let nats = nats_with("write_deadline: \"300ms\"\nmax_pending: 8388608").await;
    let line = line_to(&nats).await;
    let world = World::start(nats.url(), |_| {}).await;
    let alice = world.device("alice").await;
    let bob = world.device_at("bob", &url(&line)).await;
    world.live_again(&alice, &bob).await;
    line.set(LineState::Stalled);
    // More than fits into the buffers between them.
    let noise = connect(nats.url()).await;
    let live = world.subjects().live(&synchrotron_core::model::AudienceKey::new("project:0").expect("ok"));
    for _ in 0..400 {
        noise.publish(live.clone(), vec![0; 64 << 10].into()).await.expect("sends");
    }
    noise.flush().await.expect("sends");
    World::under_load(&[&alice], world.accepts(8)).await;
    line.set(LineState::Clear);
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}
