//! UPL: pending until Postgres has it, and never twice.

use synchrotron_core::engine::Concluded;
use synchrotron_core::store::Fate;
use synchrotron_core::wire::Outcome;

use crate::actions::{create, title};
use crate::fleet::World;

/// What was executed is pending until the outcome says that it is committed; a second sync changes nothing.
#[test]
fn upl_01_executed_actions_become_confirmed_once() {
    let world = World::new();
    let mut a = world.device("A");
    let ids = [a.run(&create("n", "One")), a.run(&title("n", "Two"))];
    assert_eq!(ids.map(|id| a.fate(id)), [None, None]);
    a.sync();
    assert_eq!(ids.map(|id| a.fate(id)), [Some(Fate::Confirmed), Some(Fate::Confirmed)]);
    let committed = a.sync();
    assert!(committed.rows.is_empty() && committed.fates.is_empty());
    assert_eq!(world.logged(), ids);
}

/// The server has accepted, but the device cannot keep that: nothing is marked, and the next try gets the same answer.
#[test]
fn upl_02_an_outcome_that_cannot_be_kept_marks_nothing() {
    let world = World::new();
    let mut a = world.device("A");
    let ids = [a.run(&create("n", "One")), a.run(&title("n", "Two"))];
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    assert_eq!(world.logged(), ids, "the server has both");
    let other = rusqlite::Connection::open(a.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("holds the file");
    a.conclude(&sent, &outcome).expect_err("busy");
    other.execute_batch("ROLLBACK").expect("lets go");
    let pending: Vec<_> = a.pending().into_iter().map(|record| record.id).collect();
    assert_eq!(pending, ids, "the same two, in the same order");
    a.sync();
    assert_eq!(world.logged(), ids);
    assert!(a.pending().is_empty());
}

/// A lost acknowledgement: the same batch again is answered from what the server has.
#[test]
fn upl_03_upl_04_the_same_batch_again_has_no_second_effect() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "Idempotent"));
    let sent = a.batch().expect("pending");
    let first = a.send(&sent).expect("answers");
    let second = a.send(&sent).expect("answers");
    assert!(matches!(first, Outcome::Accepted { .. }));
    assert_eq!(first, second);
    assert_eq!(world.server.log().len(), 1);
    a.sync();
    world.settle(&mut [&mut a]);
}

/// The answer is lost for good, the app restarts: what it sends again is known, and confirmed once.
#[test]
fn upl_03_a_lost_outcome_and_a_restart_confirm_once() {
    let world = World::new();
    let mut a = world.device("A");
    let id = a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    a.network.lose_next_outcome();
    a.send(&sent).expect_err("the answer is lost");
    a.restart(&[]);
    assert_eq!(a.fate(id), None, "unknown is unknown");
    a.sync();
    assert_eq!((a.fate(id), world.logged()), (Some(Fate::Confirmed), vec![id]));
}

/// Own uploads never count as unseen: two uploads in a row without a fetch between them.
#[test]
fn upl_05_a_devices_own_uploads_do_not_put_it_behind() {
    let world = World::new();
    let mut a = world.device("A");
    for note in ["n", "m"] {
        a.run(&create(note, "One"));
        let sent = a.batch().expect("pending");
        let outcome = a.send(&sent).expect("answers");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
        assert!(matches!(a.conclude(&sent, &outcome), Ok(Concluded::Settled(_))));
    }
    assert_eq!(world.server.log().len(), 2);
}

/// The outcome tells each record's number, and the device keeps it.
#[test]
fn upl_07_the_device_learns_the_numbers_of_what_it_uploaded() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    a.run(&title("n", "Two"));
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    a.conclude(&sent, &outcome).expect("concludes");
    let numbers = a.rows("SELECT server_ingest_id AS number FROM action_records ORDER BY position_clock");
    assert_eq!(numbers.iter().map(|row| row["number"].clone()).collect::<Vec<_>>(), [1.into(), 2.into()]);
}

/// A batch that history overtook: its outcome is void, and a fetch tells what was accepted.
#[test]
fn upl_an_outcome_of_a_history_that_changed_meanwhile_is_void() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let id = a.run(&create("n", "of A"));
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    b.run(&create("m", "of B"));
    b.sync();
    a.fetch().expect("fetches, before the outcome arrives");
    assert!(matches!(a.conclude(&sent, &outcome), Ok(Concluded::Fetch)));
    assert_eq!(a.fate(id), Some(Fate::Confirmed));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(world.server.log().len(), 2);
}
