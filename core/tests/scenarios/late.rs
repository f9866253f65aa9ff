//! LATE: what arrives later than it was executed takes its place in the order, on every device.
//!
//! Not here: LATE-04. There are no rollback markers that could be applied or forgotten.

use synchrotron_core::store::Fate;

use crate::actions::{CopyTitle, DeleteNote, claim, content, create, title};
use crate::fleet::{World, story};

/// The receiver has nothing pending, rewinds to the late action's place and replays: the newer title stays.
#[test]
fn late_01_srv_01_an_older_title_that_arrives_late_does_not_win() {
    let world = World::new();
    let [mut old, mut new, mut receiver] = world.devices(["O", "N", "R"]);
    old.run(&create("n", "Base"));
    world.settle(&mut [&mut old, &mut new, &mut receiver]);
    old.run(&title("n", "Title-old"));
    new.run(&title("n", "Title-new"));
    new.sync();
    receiver.sync();
    assert_eq!((receiver.title("n").as_str(), receiver.corrections()), ("Title-new", 0));
    old.sync();
    assert_eq!(world.server_value("notes", "n", "title"), Some("Title-new".into()));
    receiver.sync();
    assert_eq!((receiver.title("n").as_str(), receiver.corrections()), ("Title-new", 0));
    world.settle(&mut [&mut old, &mut new, &mut receiver]);
}

/// Several effects of one late action on one row stay in their sequence beneath two newer actions.
#[test]
fn late_01_srv_02_srv_06_a_late_action_goes_beneath_several_newer_ones() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    a.run(&title("n", "old-1"));
    a.run(&title("n", "old-2"));
    b.run(&title("n", "of B"));
    b.sync();
    c.run(&title("n", "of C"));
    c.sync();
    a.sync();
    assert_eq!(world.server_value("notes", "n", "title"), Some("of C".into()));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.title("n"), "of C");
}

/// Nothing late ever takes away what it does not touch.
#[test]
fn late_03_both_notes_exist_whatever_arrives_in_between() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("first", "One"));
    b.run(&create("between", "Two"));
    a.run(&create("last", "Three"));
    a.sync();
    c.sync();
    b.sync();
    c.sync();
    assert_eq!((c.count("notes"), c.corrections()), (3, 0));
    world.settle(&mut [&mut a, &mut b, &mut c]);
}

/// A replica undoes with the images that it took itself, never with the author's, which did not know what came between:
/// the late copy finds the title that lies beneath it.
#[test]
fn app_13_undo_is_a_replicas_own_and_a_late_copy_finds_the_right_title() {
    let world = World::new();
    let [mut a, mut b, mut late, mut receiver] = world.devices(["A", "B", "L", "R"]);
    a.run(&create("n", "T0"));
    world.settle(&mut [&mut a, &mut b, &mut late, &mut receiver]);
    a.run(&title("n", "of A"));
    late.run(&CopyTitle { note: "n".into() });
    b.run(&title("n", "of B, who had not seen A"));
    a.sync();
    b.sync();
    receiver.sync();
    late.sync();
    receiver.sync();
    assert_eq!((receiver.title("n").as_str(), receiver.content("n").as_str()), ("of B, who had not seen A", "of A"));
    world.settle(&mut [&mut a, &mut b, &mut late, &mut receiver]);
}

/// A late claim takes what a newer one took before: the newer one's effect is removed by a correction in the rule's own
/// words, and its author is told.
#[test]
fn late_a_rule_holds_after_a_late_arrival_and_the_loser_is_told_why() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "free"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    let early = b.run(&claim("n", "B"));
    let late = a.run(&claim("n", "A"));
    a.sync();
    assert_eq!(a.fate(late), Some(Fate::Confirmed));
    b.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(b.fate(early), Some(Fate::Confirmed));
    assert_eq!(a.fate(late), Some(Fate::Changed { reason: Some("it is taken".into()) }), "a fate may change later");
    for device in [&a, &b, &c] {
        assert_eq!(device.title("n"), "B");
    }
    let corrections = world.corrections();
    assert_eq!(corrections.len(), 1);
    assert_eq!(story(&corrections[0].rows), ["NOTHING notes.n"]);
}

/// A late delete beneath an edit: the edit finds no row, on every replica alike.
#[test]
fn late_a_delete_beneath_an_edit_leaves_no_row() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    a.run(&DeleteNote { note: "n".into() });
    let edit = b.run(&content("n", "edited"));
    b.sync();
    c.sync();
    a.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(c.count("notes"), 0);
    assert!(matches!(b.fate(edit), Some(Fate::Changed { .. } | Fate::Confirmed)));
}
