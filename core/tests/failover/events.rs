//! What carriers push, while they come and go.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use synchrotron_core::model::ActionId;
use synchrotron_core::network::Ingress;
use uuid::Uuid;

use crate::faulty::Mode;
use crate::scene::{Scene, unavailable};

async fn next(events: &mut BoxStream<'static, Ingress>) -> Ingress {
    tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("in time").expect("the stream goes on")
}

/// Waits until a seat's slice comes; wakeups may come before.
async fn hears(events: &mut BoxStream<'static, Ingress>, n: u128) {
    loop {
        match next(events).await {
            Ingress::Slice(slice) if slice.records[0].record.id == ActionId::from_uuid(Uuid::from_u128(n)) => return,
            Ingress::Slice(_) | Ingress::Wakeup => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_on_through_the_second_carrier_and_return_to_the_first() {
    let scene = Scene::new();
    scene.session().await.expect("the first carrier serves");
    let mut events = scene.subscribe().await;
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
    assert_eq!(scene.second.calls(), 0, "one carrier is enough");

    scene.first.inner.set_online(false);
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second carrier takes over");
    scene.colleague_writes(2).await;
    hears(&mut events, 2).await;

    scene.first.inner.set_online(true);
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the first carrier is back");
    scene.colleague_writes(3).await;
    // Until the first one has proved itself, both are heard.
    hears(&mut events, 3).await;
    hears(&mut events, 3).await;
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second one was let go");
    scene.second.inner.set_online(false);
    scene.colleague_writes(4).await;
    hears(&mut events, 4).await;
}

#[tokio::test(start_paused = true)]
async fn events_begin_when_a_carrier_comes_at_last() {
    let scene = Scene::new();
    scene.first.inner.set_online(false);
    scene.second.inner.set_online(false);
    let mut events = scene.subscribe().await;
    let silence = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    assert!(silence.is_err(), "nothing to hear: {silence:?}");
    assert!(scene.first.calls() < 200, "it backs off");

    scene.first.inner.set_online(true);
    assert_eq!(next(&mut events).await, Ingress::Wakeup);
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_whose_calls_fail_is_not_relied_on_for_events() {
    let scene = Scene::new();
    let mut events = scene.subscribe().await;
    scene.first.set(Mode::Fail(unavailable()));
    scene.session().await.expect("the second carrier serves");
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second carrier's events begin");
    scene.first.inner.lose_next_slices(1);
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_whose_calls_hang_goes_on_pushing_beside_the_one_that_takes_its_place() {
    let scene = Scene::new();
    let mut events = scene.subscribe().await;
    scene.first.set(Mode::Hang);
    scene.session().await.expect("the second carrier serves");
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second carrier's events begin");
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
    hears(&mut events, 1).await;
    scene.second.inner.lose_next_slices(1);
    scene.colleague_writes(2).await;
    hears(&mut events, 2).await;
}

/// The stream is polled between calls. A carrier that is asked for its events then, and keeps calls waiting until it has
/// answered, must not wait for the next poll: that comes after the call.
#[tokio::test(start_paused = true)]
async fn a_call_does_not_wait_for_a_subscription_that_waits_to_be_polled() {
    let scene = Scene::new();
    scene.first.set(Mode::Fail(unavailable()));
    let mut events = scene.subscribe().await;
    scene.first.set(Mode::OneByOne);
    while scene.first.calls() < 2 {
        let _nothing_yet = tokio::time::timeout(Duration::from_millis(10), events.next()).await;
    }
    let session = tokio::time::timeout(Duration::from_secs(60), scene.session()).await;
    session.expect("it waits for nobody who is not polled").expect("the first carrier serves");
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the first carrier's events begin");
}
