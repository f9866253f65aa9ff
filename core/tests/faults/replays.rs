//! U01 to U04 within one process: the store fails at every call of a step, one after the other.

use std::path::Path;

use synchrotron_core::engine::{Concluded, EngineError};
use synchrotron_core::model::{ActionId, ServerIngestId};
use synchrotron_core::store::{Fate, FaultKind};
use synchrotron_core::wire::{FetchPage, Outcome, RejectionKind};
use tempfile::TempDir;

use crate::world::{ALICE, BOB, Book, Device, NOW, OpenHall, assert_closed, assert_same, book, dump, page};

pub(crate) const SEATS: usize = 20;

/// Alice has ten bookings pending; Bob has made ten in between, some of the same seats, which the server has accepted.
pub(crate) struct Standoff {
    pub(crate) folder: TempDir,
    /// Bob's bookings, numbered after the hall's opening.
    pub(crate) arrivals: FetchPage,
}

pub(crate) fn standoff() -> Standoff {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (mut alice, mut bob) = (Device::open(folder.path(), ALICE), Device::open(other.path(), BOB));
    alice.begin_session();
    bob.begin_session();
    alice.execute(0, 0, &OpenHall { seats: SEATS });
    let opening = page(alice.accepted_by_server(1));
    alice.integrate(&opening).expect("its own action comes back");
    bob.integrate(&opening).expect("integrates");
    for n in 0..10 {
        let at_ms = 10 * i64::try_from(n).expect("small");
        // Bob is now before, now after Alice; they meet at seats 6 to 9.
        let bobs = if n % 2 == 0 { at_ms + 5 } else { at_ms + 25 };
        alice.execute(n as u128 + 1, at_ms + 10, &book(n, &format!("alice {n}")));
        bob.execute(n as u128 + 1, bobs, &book(n + 6, &format!("bob {n}")));
    }
    Standoff { folder, arrivals: page(bob.accepted_by_server(2)) }
}

/// What another device did with seats that nobody else wants, too large for a disk that is nearly full.
pub(crate) fn large_arrivals() -> FetchPage {
    let folder = tempfile::tempdir().expect("a folder");
    let mut bob = Device::open(folder.path(), BOB);
    bob.begin_session();
    bob.execute(90, 90, &OpenHall { seats: SEATS });
    bob.execute(91, 91, &Book { scan_bytes: 100 << 10, ..book(17, "bob") });
    page(bob.accepted_by_server(20))
}

/// Makes a step fail at each of its store calls in turn; after each failure nothing has changed. Ends when it succeeds.
pub(crate) fn fail_at_every_call<T>(
    folder: &Path,
    device: &mut Device,
    mut step: impl FnMut(&mut Device) -> Result<T, EngineError>,
) -> (u32, T) {
    let before = dump(folder);
    for calls in 0.. {
        device.switch.arm(calls, FaultKind::Lasting);
        let ended = step(device);
        let fired = device.switch.has_fired();
        device.switch.disarm();
        match ended {
            Ok(done) if !fired => return (calls, done),
            Ok(_) => panic!("call {calls} failed and the step did not say so"),
            Err(error) => assert!(matches!(error, EngineError::Store(_)), "call {calls}: {error}"),
        }
        assert_same(&dump(folder), &before, &format!("after call {calls} failed"));
    }
    unreachable!("a step ends")
}

#[test]
fn u01_an_execution_that_fails_at_any_call_leaves_nothing() {
    let Standoff { folder, .. } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let (calls, _) = fail_at_every_call(folder.path(), &mut alice, |alice| {
        alice.try_execute(50, 500, &book(16, "late")).map_err(|error| match error {
            synchrotron_core::engine::ExecuteError::Store(error) => EngineError::Store(error),
            other => panic!("a failing disk is no fault of the action: {other}"),
        })
    });
    assert!(calls > 10, "every call of an execution was met: {calls}");
    assert_eq!(alice.engine.pending_count().expect("reads"), 11);
    assert_closed(folder.path());
}

#[test]
fn u02_u03_a_reconcile_that_fails_at_any_call_changes_nothing_and_then_ends_as_without() {
    let Standoff { folder, arrivals } = standoff();
    let smooth = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let (calls, ()) = fail_at_every_call(folder.path(), &mut alice, |alice| alice.integrate(&arrivals));
    assert!(calls > 200, "every call of rewind and replay was met: {calls}");
    Device::open(smooth.folder.path(), ALICE).integrate(&smooth.arrivals).expect("integrates");
    let end = dump(smooth.folder.path());
    assert_same(&dump(folder.path()), &end, "the same end as without a failure");
    assert_eq!(alice.cursor(), 11);
    assert!(!alice.engine.quarantined().expect("reads").is_empty(), "some of Alice's seats were taken");
    alice.integrate(&arrivals).expect("the same page again");
    assert_same(&dump(folder.path()), &end, "nothing is applied twice");
    assert_closed(folder.path());
}

#[test]
fn u03_one_failing_call_says_nothing_about_the_actions_that_ran() {
    // The disk recovers at once: what an action made of the failure must not count.
    let Standoff { folder, arrivals } = standoff();
    let before = dump(folder.path());
    let mut alice = Device::open(folder.path(), ALICE);
    for calls in (0..).step_by(5) {
        alice.switch.arm(calls, FaultKind::Once);
        let ended = alice.integrate(&arrivals);
        let fired = alice.switch.has_fired();
        alice.switch.disarm();
        if !fired {
            ended.expect("nothing failed");
            break;
        }
        ended.expect_err("a failed call fails the step");
        assert_same(&dump(folder.path()), &before, &format!("after call {calls} failed"));
    }
    assert_eq!(alice.cursor(), 11);
}

#[test]
fn u04_an_acknowledgement_that_fails_at_any_call_changes_nothing() {
    let Standoff { folder, .. } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let sent = alice.batch().expect("pending");
    let ids = sent.batch.records.iter().map(|record| record.id).zip((20..).map(ServerIngestId::new)).collect();
    let outcome = Outcome::Accepted { ids };
    let (calls, concluded) =
        fail_at_every_call(folder.path(), &mut alice, |alice| alice.engine.conclude(&sent, &outcome, NOW));
    assert!(calls > 20, "{calls}");
    assert!(matches!(concluded, Concluded::Settled(committed) if committed.fates.len() == 10));
    assert_eq!(alice.engine.pending_count().expect("reads"), 0);
    assert_eq!(alice.engine.fate(sent.batch.records[3].id).expect("reads"), Some(Fate::Confirmed));
}

#[test]
fn u03_a_rejection_that_fails_at_any_call_changes_nothing() {
    let Standoff { folder, .. } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let sent = alice.batch().expect("pending");
    let action: ActionId = sent.batch.records[2].id;
    let outcome = Outcome::Rejected { action, kind: RejectionKind::Denied, reason: "not allowed".to_owned() };
    fail_at_every_call(folder.path(), &mut alice, |alice| alice.engine.conclude(&sent, &outcome, NOW));
    assert_eq!(alice.engine.pending_count().expect("reads"), 9);
    let quarantined = alice.engine.quarantined().expect("reads");
    assert_eq!(quarantined.iter().map(|one| one.id).collect::<Vec<_>>(), [action]);
}

#[test]
fn u04_an_acknowledgement_lost_with_the_process_is_made_up_by_the_next_fetch() {
    let Standoff { folder, arrivals } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let sent = alice.batch().expect("pending");
    // The server accepts Alice's batch before it has seen Bob's, and her device dies before it hears of it.
    let mut log = alice.accepted_by_server(2);
    drop(alice);
    log.extend((12..).zip(arrivals.records).map(|(number, mut bobs)| {
        bobs.record.server_ingest_id = Some(ServerIngestId::new(number));
        bobs
    }));
    let mut alice = Device::open(folder.path(), ALICE);
    alice.integrate(&page(log.clone())).expect("integrates");
    assert_eq!(alice.engine.pending_count().expect("reads"), 0, "the server has them all");
    assert_eq!(alice.engine.quarantined().expect("reads"), [], "what is accepted is never refused");
    let settled = dump(folder.path());
    alice.integrate(&page(log)).expect("the same again");
    let ids = sent.batch.records.iter().map(|record| record.id).zip((2..).map(ServerIngestId::new)).collect();
    alice.engine.conclude(&sent, &Outcome::Accepted { ids }, NOW).expect("the lost answer comes after all");
    assert_same(&dump(folder.path()), &settled, "each record once");
}
