//! Slices of the past go into a stream that lost them, by command and by themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::{self, Context};
use synchrotron_core::model::{AudienceKey, Cursor};
use synchrotron_core::wire::{self, Slice};
use synchrotron_server::api::nats::republish;
use synchrotron_testkit::wait_for;

use crate::world::{PATIENCE, World, connect, nats};

async fn admin(nats_url: &str) -> Context {
    jetstream::new(connect(nats_url).await)
}

/// Everything in the stream of slices, by audience, in the stream's order.
async fn stored(world: &World, admin: &Context) -> BTreeMap<AudienceKey, Vec<Slice>> {
    let stream = admin.get_stream(world.stream("LOG")).await.expect("there");
    let state = stream.cached_info().state.clone();
    let mut stored: BTreeMap<_, Vec<Slice>> = BTreeMap::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("there");
        let slice: Slice = wire::decode(&message.payload, 16 << 20).expect("a slice");
        stored.entry(slice.audience_key.clone()).or_default().push(slice);
    }
    stored
}

/// The slices of each audience follow each other from its beginning to its head, and hold every record.
async fn is_whole(world: &World, stored: &BTreeMap<AudienceKey, Vec<Slice>>) {
    let heads = world.count("audience_heads", "head > 0").await;
    assert_eq!(i64::try_from(stored.len()).expect("few"), heads);
    let mut records = 0;
    for (audience, slices) in stored {
        let mut prev = Cursor::START;
        for slice in slices {
            assert_eq!(slice.prev, prev, "{audience}");
            prev = slice.through;
            records += slice.records.len();
        }
        let at_head = format!("audience_key = '{audience}' AND head = {}", prev.get());
        assert_eq!(world.count("audience_heads", &at_head).await, 1, "{audience} ends at {prev}");
    }
    assert_eq!(i64::try_from(records).expect("few"), world.count("action_records", "true").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_stream_is_filled_from_postgres() {
    let nats = nats().await;
    // By command only.
    let mut world = World::start(nats.url(), |api| api.republish = Duration::ZERO).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], world.accepts(30)).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
    let admin = admin(nats.url()).await;
    is_whole(&world, &stored(&world, &admin).await).await;

    admin.delete_stream(world.stream("LOG")).await.expect("deleted");
    let service = world.servers[0].service().clone();
    let done = republish(&service, world.api(), None).await.expect("published");
    assert!(done.slices > 0 && done.known == 0, "{done:?}");
    let filled = stored(&world, &admin).await;
    is_whole(&world, &filled).await;
    let again = republish(&service, world.api(), None).await.expect("published");
    assert_eq!((again.messages, again.known), (done.messages, done.messages), "each is there already");
    let newest = republish(&service, world.api(), Some(Duration::from_secs(3_600))).await.expect("published");
    assert_eq!(newest.known, newest.messages, "a part of the past has the same slices");
    assert_eq!(stored(&world, &admin).await, filled);

    // Devices go on as if nothing had been.
    world.add_server().await;
    world.live_again(&bob, &alice).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_fills_a_stream_that_it_finds_gone() {
    let nats = nats().await;
    let world = World::start(nats.url(), |_| {}).await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    World::under_load(&[&alice, &bob], world.accepts(10)).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
    let admin = admin(nats.url()).await;
    admin.delete_stream(world.stream("LOG")).await.expect("deleted");
    // The next commit finds it gone.
    world.live_again(&alice, &bob).await;
    let head = world.count("action_records", "true").await;
    let filled = wait_for("all slices to be there again", PATIENCE, async || {
        let stored = stored(&world, &admin).await;
        let records: usize = stored.values().flatten().map(|slice| slice.records.len()).sum();
        (i64::try_from(records).expect("few") >= head).then_some(())
    });
    filled.await.expect("filled");
}
