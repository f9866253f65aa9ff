//! Slices that come again, late, and in any order.

use futures::StreamExt;
use rand::Rng;
use rand::seq::SliceRandom;

use crate::world::{World, connect, nats, random};

#[tokio::test(flavor = "multi_thread")]
async fn u07_slices_that_come_again_and_in_any_order_change_nothing() {
    let mut random = random("u07");
    let nats = nats().await;
    let world = World::start(nats.url(), |_| {}).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    let echo = connect(nats.url()).await;
    let mut live = echo.subscribe(world.subjects().all_live()).await.expect("subscribes");
    // Each slice one to three times more, a handful at a time, shuffled.
    let echoing = async {
        let mut held = Vec::new();
        for _ in 0..150 {
            let message = live.next().await.expect("goes on");
            held.extend(std::iter::repeat_n(message, random.random_range(1..=3)));
            if held.len() > 8 {
                held.shuffle(&mut random);
                for message in held.drain(..6) {
                    echo.publish(message.subject, message.payload).await.expect("sends");
                }
            }
        }
    };
    World::under_load(&[&alice, &bob], echoing).await;
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
    assert_eq!(world.count("action_records", "amends IS NOT NULL").await, 0, "nothing was found to correct");
}
