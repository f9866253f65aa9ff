//! REC: pending work meets remote work.
//!
//! Not here: REC-08, REC-09. There are no rollback markers; every replica derives the rewind point from the order.

use synchrotron_core::store::Fate;

use crate::actions::{CopyTitle, claim, content, create, title};
use crate::device::Device;
use crate::fleet::{World, story};

/// Pending newer work is rewound and replayed over older remote work: the same ids, the same clocks, no new records.
#[test]
fn rec_01_replay_keeps_ids_and_clocks_and_makes_no_records() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let older = a.run(&create("n", "of A"));
    let newer = b.run(&create("m", "of B"));
    let before = b.pending().remove(0);
    a.sync();
    b.fetch().expect("fetches");
    let after = b.pending().remove(0);
    assert_eq!((after.id, after.clock), (before.id, before.clock));
    b.sync();
    assert_eq!(world.logged(), [older, newer]);
    world.settle(&mut [&mut a, &mut b]);
}

/// Concurrent edits of different columns of one row both stay.
#[test]
fn rec_02_edits_of_different_columns_both_stay() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b]);
    let one = a.run(&title("n", "title from A"));
    let two = b.run(&content("n", "content from B"));
    a.sync();
    b.sync();
    a.sync();
    for device in [&a, &b] {
        assert_eq!((device.title("n"), device.content("n")), ("title from A".into(), "content from B".into()));
    }
    assert_eq!((a.fate(one), b.fate(two)), (Some(Fate::Confirmed), Some(Fate::Confirmed)));
    world.settle(&mut [&mut a, &mut b]);
}

/// An unknown older action under pending work is applied by its patch. The system before this one failed the sync.
#[test]
fn rec_04_an_unknown_tag_beneath_pending_work_stops_nothing() {
    let world = World::new();
    let mut a = world.device("A");
    world.allow("B", "shared");
    let mut b = Device::open(&world, "B", "B", &["set_title_v1"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b]);
    a.run(&title("n", "unknown to B"));
    b.run(&content("n", "of B"));
    a.sync();
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.title("n"), b.content("n")), ("unknown to B".into(), "of B".into()));
}

/// What was reconciled is uploaded in the same pass, on the cursors that the pass reached.
#[test]
fn rec_05_reconciled_work_is_uploaded_in_the_same_pass() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "of A"));
    let own = b.run(&create("m", "of B"));
    a.sync();
    b.fetch().expect("fetches");
    let sent = b.batch().expect("pending");
    assert_eq!(sent.batch.basis, b.engine().cursors().expect("reads"));
    b.sync();
    assert_eq!(b.fate(own), Some(Fate::Confirmed));
    assert!(b.pending().is_empty());
}

/// Only what lies at or after the smallest new position is touched: the undo of older work stays as it is.
#[test]
fn rec_06_what_lies_before_the_smallest_new_position_is_not_touched() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    for n in 0..50 {
        a.run(&create(&format!("n{n}"), "Base"));
    }
    world.settle(&mut [&mut a, &mut b]);
    let old_undo = b.rows("SELECT * FROM local_undo ORDER BY seq");
    a.run(&title("n0", "older"));
    b.run(&title("n0", "newer"));
    a.sync();
    b.sync();
    let undo = b.rows("SELECT * FROM local_undo ORDER BY seq");
    assert_eq!(undo[..old_undo.len()], old_undo, "the fifty are as they were");
    assert_eq!(undo.len(), old_undo.len() + 2);
    assert_eq!(b.title("n0"), "newer");
}

/// What a pending action does after replay becomes its patch before it is uploaded: no stale value ever leaves, and no
/// correction follows. The system before this one sent the stale patch and a correction of it.
#[test]
fn rec_07_a_pending_action_is_uploaded_with_what_it_does_now() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b]);
    a.run(&title("n", "of A"));
    b.run(&CopyTitle { note: "n".into() });
    assert_eq!(b.content("n"), "Base", "the title that B knows");
    a.sync();
    b.sync();
    let copied = world.server.log().pop().expect("logged");
    assert_eq!(story(&copied.rows), ["UPDATE notes.n {content=of A}"]);
    assert_eq!(world.corrections().len(), 0);
    world.settle(&mut [&mut a, &mut b]);
}

/// A pending action that can no longer run is quarantined with its reason, and what does not need it goes on.
#[test]
fn rec_a_pending_action_that_fails_on_replay_is_kept_in_quarantine() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "free"));
    world.settle(&mut [&mut a, &mut b]);
    a.run(&claim("n", "A"));
    let lost = b.run(&claim("n", "B"));
    let goes_on = b.run(&content("n", "of B"));
    a.sync();
    b.sync();
    assert_eq!(b.fate(lost), Some(Fate::Rejected { reason: "it is taken".into() }));
    assert_eq!(b.fate(goes_on), Some(Fate::Confirmed));
    assert_eq!((b.title("n"), b.content("n")), ("A".into(), "of B".into()));
    world.settle(&mut [&mut a, &mut b]);
}
