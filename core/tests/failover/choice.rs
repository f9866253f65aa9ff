//! Which carrier carries, and why.

use std::collections::BTreeSet;
use std::time::Duration;

use synchrotron_core::network::{Carrier, CarrierReason, CarrierTrouble, Failover, Network, NetworkError};
use synchrotron_core::wire::{Fault, FaultCode, Outcome, SessionRequest};
use tokio::time::{Instant, sleep};

use crate::faulty::{HANGS_FOR, Mode};
use crate::scene::{DEVICE, PAUSES, Scene, client, project, unavailable};

const STEP: Duration = Duration::from_millis(10);

impl Scene {
    /// Makes a call every step for so long; each is answered, and none waits for one that it does not need.
    async fn calls_for(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            let asked = Instant::now();
            self.session().await.expect("one of them serves");
            assert_eq!(Instant::now(), asked, "a call waited");
            sleep(STEP).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_carrier_is_left_alone_and_asked_beside_the_calls() {
    let scene = Scene::new();
    scene.first.set(Mode::Hang);
    scene.session().await.expect("the second carrier serves");
    scene.calls_for(PAUSES.first.mul_f64(0.4)).await;
    assert_eq!(scene.first.calls(), 1, "left alone");
    // Each probe hangs, and is followed by a rest of at most the longest pause.
    scene.calls_for(Duration::from_secs(60)).await;
    let probes = scene.first.calls() - 1;
    let most = Duration::from_secs(60).div_duration_f64(HANGS_FOR);
    assert!(f64::from(probes) <= most + 1.0 && f64::from(probes) >= most / 2.0, "{probes} probes");
}

#[tokio::test(start_paused = true)]
async fn it_is_returned_to_when_it_has_answered_for_a_while() {
    let scene = Scene::new();
    assert_eq!(scene.failover.reason(), CarrierReason::Preferred);
    scene.first.set(Mode::Fail(unavailable()));
    scene.calls_for(Duration::from_secs(1)).await;
    let fallback = CarrierReason::Fallback { trouble: CarrierTrouble::Unavailable };
    assert_eq!((scene.failover.carrier(), scene.failover.reason()), (Carrier::Memory, fallback));

    scene.first.set(Mode::Up);
    let back = Instant::now();
    let mut proving = None;
    while scene.failover.carrier() != Carrier::Nats {
        if matches!(scene.failover.reason(), CarrierReason::Proving { .. }) {
            proving.get_or_insert_with(Instant::now);
        }
        scene.calls_for(STEP).await;
    }
    assert!(proving.expect("it was proving").elapsed() >= PAUSES.first, "one answer is not enough");
    assert!(back.elapsed() <= PAUSES.longest * 3, "{:?}", back.elapsed());
    assert_eq!(scene.failover.reason(), CarrierReason::Preferred);
    let before = scene.second.calls();
    scene.calls_for(Duration::from_secs(1)).await;
    assert_eq!(scene.second.calls(), before, "all calls go to the preferred one");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_comes_and_goes_is_not_followed() {
    let scene = Scene::new();
    let mut carriers = vec![scene.failover.carrier()];
    for round in 0..200 {
        scene.first.inner.set_online(round % 2 == 0);
        for _step in 0..20 {
            scene.session().await.expect("one of them serves");
            carriers.push(scene.failover.carrier());
            sleep(STEP).await;
        }
    }
    let changes = carriers.windows(2).filter(|pair| pair[0] != pair[1]).count();
    assert!((1..=6).contains(&changes), "the carrier changed {changes} times in 200 changes of the connection");

    scene.first.inner.set_online(true);
    scene.calls_for(PAUSES.longest * 3).await;
    assert_eq!(scene.failover.carrier(), Carrier::Nats, "it stays connected, and carries");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_is_connecting_has_not_failed() {
    let scene = Scene::new();
    scene.first.inner.set_online(false);
    scene.session().await.expect("the second carrier serves");
    assert_eq!((scene.first.calls(), scene.failover.carrier()), (0, Carrier::Memory));
    assert_eq!(scene.failover.reason(), CarrierReason::Fallback { trouble: CarrierTrouble::Disconnected });
    scene.first.inner.set_online(true);
    assert_eq!(scene.failover.carrier(), Carrier::Nats, "it carries as soon as it is there");
    scene.session().await.expect("the first carrier serves");
    assert_eq!((scene.first.calls(), scene.second.calls()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_without_an_answer_tells_which() {
    let scene = Scene::new();
    scene.first.set(Mode::Hang);
    scene.session().await.expect("the second carrier serves");
    let after_ms = u64::try_from(HANGS_FOR.as_millis()).expect("short");
    let trouble = CarrierTrouble::NoAnswer { call: "session", after_ms };
    assert_eq!(scene.failover.reason(), CarrierReason::Fallback { trouble });
}

#[tokio::test(start_paused = true)]
async fn the_carrier_is_the_one_that_carries_now() {
    let scene = Scene::new();
    assert_eq!(scene.failover.carrier(), Carrier::Nats);
    scene.first.inner.set_online(false);
    scene.second.inner.set_online(false);
    assert_eq!(scene.failover.carrier(), Carrier::Offline);
    let error = scene.session().await.expect_err("all are away");
    assert!(matches!(error, NetworkError::Unavailable { .. }), "{error}");
    scene.second.inner.set_online(true);
    scene.session().await.expect("the second carrier serves");
    assert_eq!(scene.failover.carrier(), Carrier::Memory);
}

#[tokio::test(start_paused = true)]
async fn when_all_rest_all_are_tried() {
    let scene = Scene::new();
    scene.first.set(Mode::Fail(unavailable()));
    scene.second.set(Mode::Fail(unavailable()));
    assert!(scene.session().await.is_err());
    scene.first.set(Mode::Up);
    scene.session().await.expect("no call is refused without trying");
}

#[tokio::test]
async fn a_fault_is_not_taken_to_the_next_carrier() {
    let scene = Scene::new();
    scene.first.set(Mode::RefuseAuth);
    assert!(matches!(scene.session().await, Err(NetworkError::Fault(_))));
    assert_eq!(scene.second.calls(), 0);
    assert_eq!(scene.failover.reason(), CarrierReason::Preferred);
}

#[tokio::test]
async fn a_message_too_large_goes_by_the_next_carrier_and_the_first_stays_preferred() {
    let scene = Scene::new();
    let request = NetworkError::TooLarge { carrier: Carrier::Nats, max: 1, actual: 2 };
    let answer = Fault::new(FaultCode::TooLarge, "NATS does not carry the answer").into();
    for (n, too_large) in [(1, request), (2, answer)] {
        scene.first.set(Mode::Fail(too_large));
        assert!(matches!(scene.failover.upload(&scene.batch(DEVICE, n)).await, Ok(Outcome::Accepted { .. })));
    }
    scene.first.set(Mode::Up);
    scene.session().await.expect("the first carrier serves");
    assert_eq!((scene.first.calls(), scene.second.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn an_upload_with_an_unknown_outcome_has_one_effect() {
    let scene = Scene::new();
    for n in 1..=20 {
        // Each carrier comes and goes, and loses outcomes; the device sends until it has one.
        scene.first.inner.set_online(n % 3 != 0);
        scene.second.inner.set_online(n % 4 != 0 || n % 3 != 0);
        if n % 2 == 0 {
            scene.first.inner.lose_next_outcome();
            scene.second.inner.lose_next_outcome();
        }
        let batch = scene.batch(DEVICE, n);
        let sent = async {
            loop {
                match scene.failover.upload(&batch).await {
                    Ok(outcome) => return outcome,
                    Err(error) => {
                        assert!(error.is_carrier_trouble(), "{error}");
                        scene.second.inner.set_online(true);
                        tokio::time::sleep(PAUSES.first).await;
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(60), sent).await.expect("in time");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let log = scene.server.log();
    let ids: BTreeSet<_> = log.iter().map(|record| record.record.id).collect();
    assert_eq!((log.len(), ids.len()), (20, 20), "nothing lost, nothing doubled");
}

#[tokio::test]
async fn no_carrier_at_all_is_a_clear_error() {
    let failover = Failover::new(vec![]);
    let error = failover.session(&SessionRequest { client_id: client(1) }).await.expect_err("nobody to ask");
    assert_eq!(error.to_string(), "Offline is unavailable: no carrier is configured");
    assert!(failover.subscribe(&[project()]).await.expect("no fault").is_none());
}
