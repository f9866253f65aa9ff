//! U19, U25: rules of the schema, deletes, cascades and ids that are used again.

use synchrotron_core::store::Fate;

use crate::actions::{
    AddTask, CreateNote, DeleteNote, DeleteProject, OpenProject, RenameProject, SetTask, WatchNote, content, create,
    create_in, title,
};
use crate::device::Device;
use crate::fleet::World;

fn open(project: &str, name: &str) -> OpenProject {
    OpenProject { project: project.into(), name: name.into() }
}

/// A project with one task, on three devices.
fn planned(world: &World) -> [Device; 3] {
    let mut devices = ["A", "B", "C"].map(|name| world.device_in(name, &["project:p", "project:q"]));
    devices[0].run(&open("p", "plan"));
    devices[0].run(&AddTask { task: "t".into(), project: "p".into() });
    world.settle(&mut devices.iter_mut().collect::<Vec<_>>());
    devices
}

/// A parent is deleted here while its child is edited there, in both orders of time and of arrival: the cascade takes the
/// child on every replica, on the server and on a fresh device.
#[test]
fn u25_a_child_edited_while_its_parent_is_deleted_is_gone_everywhere() {
    for (delete_first, upload_first) in [(true, 0), (true, 1), (false, 0), (false, 1)] {
        let world = World::new();
        let [mut a, mut b, mut c] = planned(&world);
        let delete = DeleteProject { project: "p".into() };
        let edit = SetTask { task: "t".into(), text: "edited".into() };
        if delete_first {
            a.run(&delete);
            b.run(&edit);
        } else {
            b.run(&edit);
            a.run(&delete);
        }
        if upload_first == 0 {
            a.sync();
        } else {
            b.sync();
        }
        c.sync();
        let mut fresh = world.device_in("F", &["project:p"]);
        world.settle(&mut [&mut a, &mut b, &mut c, &mut fresh]);
        assert_eq!((fresh.count("projects"), fresh.count("tasks")), (0, 0), "{delete_first} {upload_first}");
    }
}

/// A child is added offline to a parent that was deleted elsewhere: on replay the schema's rule refuses it, and its author
/// finds it in quarantine or told as changed.
#[test]
fn u25_a_child_added_to_a_deleted_parent_does_not_survive() {
    let world = World::new();
    let [mut a, mut b, mut c] = planned(&world);
    a.run(&DeleteProject { project: "p".into() });
    let orphan = b.run(&AddTask { task: "orphan".into(), project: "p".into() });
    a.sync();
    b.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert!(matches!(b.fate(orphan), Some(Fate::Rejected { .. })), "{:?}", b.fate(orphan));
    assert_eq!(c.count("tasks"), 0);
}

/// The delete arrives late beneath the child that was added: the child is removed by a correction.
#[test]
fn u25_a_delete_that_arrives_late_takes_later_children_with_it() {
    let world = World::new();
    let [mut a, mut b, mut c] = planned(&world);
    a.run(&DeleteProject { project: "p".into() });
    let orphan = b.run(&AddTask { task: "orphan".into(), project: "p".into() });
    b.sync();
    c.sync();
    a.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert!(matches!(b.fate(orphan), Some(Fate::Changed { reason: Some(_) })), "{:?}", b.fate(orphan));
    assert_eq!(c.count("tasks"), 0);
}

/// An id is used again after its row was deleted; an edit of the old row that arrives late does not touch the new one.
#[test]
fn u25_an_id_used_again_keeps_the_new_row() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "first life"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    b.run(&content("n", "late edit of the first life"));
    a.run(&DeleteNote { note: "n".into() });
    a.run(&create("n", "second life"));
    a.sync();
    c.sync();
    b.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    let mut fresh = world.device("F");
    world.settle(&mut [&mut a, &mut b, &mut c, &mut fresh]);
    assert_eq!((fresh.title("n").as_str(), fresh.content("n").as_str()), ("second life", "Base"));
}

/// Two inserts of one id with an edit between them, in every order of arrival: one row, the first one's with the edit, and
/// the second author is told.
#[test]
fn u25_two_inserts_of_one_id_end_as_the_first_in_every_order_of_arrival() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let world = World::new();
        let mut devices = world.devices(["A", "B", "C"]);
        devices[0].run(&create("n", "first"));
        devices[1].run(&create("other", "between"));
        devices[1].run(&title("n", "edits nothing where it was executed"));
        devices[2].run(&create("n", "second"));
        for index in order {
            devices[index].sync();
        }
        let mut fresh = world.device("F");
        world.settle(&mut devices.iter_mut().chain([&mut fresh]).collect::<Vec<_>>());
        assert_eq!(fresh.count("notes"), 2, "order {order:?}");
        assert_ne!(fresh.title("n"), "second", "order {order:?}: the earlier insert is in the way of the later");
    }
}

/// A unique index besides the key: of two offline inserts of one name, the earlier one stays, whichever arrives first.
#[test]
fn u19_a_unique_name_goes_to_the_earlier_action_whichever_arrives_first() {
    for first in [0, 1] {
        let world = World::new();
        let mut devices = ["A", "B", "C"].map(|name| world.device_in(name, &["project:p", "project:q"]));
        let earlier = devices[0].run(&open("p", "the name"));
        let later = devices[1].run(&open("q", "the name"));
        devices[first].sync();
        devices[2].sync();
        devices[1 - first].sync();
        world.settle(&mut devices.iter_mut().collect::<Vec<_>>());
        assert_eq!(devices[2].value("SELECT id FROM projects"), Some("p".into()), "{first} first");
        assert_eq!(devices[0].fate(earlier), Some(Fate::Confirmed));
        let told = devices[1].fate(later);
        assert!(matches!(told, Some(Fate::Rejected { .. } | Fate::Changed { reason: Some(_) })), "{told:?}");
    }
}
fn rename(project: &str, name: &str) -> RenameProject {
    RenameProject { project: project.into(), name: name.into() }
}

/// A unique name is free when an action arrives, but was not yet at that action's place in the order; who sees both
/// projects ends with both, and goes on.
#[test]
fn u19_a_name_that_was_not_free_yet_in_the_order_does_not_stop_the_sync() {
    let world = World::new();
    let mut a = world.device_in("A", &["project:q"]);
    let mut b = world.device_in("B", &["project:p"]);
    let mut both = world.device_in("C", &["project:p", "project:q"]);
    b.run(&open("p", "the name"));
    b.sync();
    both.sync();
    a.run(&open("q", "the name"));
    b.run(&rename("p", "another"));
    b.sync();
    a.sync();
    both.sync();
    let own = both.run(&rename("q", "a third"));
    world.settle(&mut [&mut a, &mut b, &mut both]);
    assert_eq!((both.count("projects"), both.is_committed(own)), (2, true));
}

/// Pending work holds a unique name, and an action that cannot be run here takes it: the pending one is rejected, with its
/// reason, and the sync goes on.
#[test]
fn u19_an_unknown_action_that_takes_a_name_rejects_the_pending_one() {
    let world = World::new();
    let mut a = world.device_in("A", &["project:p", "project:q"]);
    let mut old = Device::open(&world, "B", "B", &["open_project_v1"]);
    ["project:p", "project:q"].iter().for_each(|audience| world.allow("B", audience));
    a.run(&open("p", "one"));
    world.settle(&mut [&mut a, &mut old]);
    let pending = old.run(&rename("p", "the name"));
    a.run(&open("q", "the name"));
    a.sync();
    old.sync();
    assert!(matches!(old.fate(pending), Some(Fate::Rejected { .. })), "{:?}", old.fate(pending));
    world.settle(&mut [&mut a, &mut old]);
    assert_eq!(old.count("projects"), 2);
}

/// A row refers to one that this user may not see: it is applied all the same, and the sync goes on.
#[test]
fn u19_a_reference_to_an_invisible_row_does_not_stop_the_sync() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "adm"]);
    let mut b = world.device_in("B", &["adm"]);
    a.run(&create_in("p", "n", "invisible to B"));
    a.run(&WatchNote { note: "n".into(), audience: "adm".into() });
    a.sync();
    b.sync();
    let own = b.run(&CreateNote { audience: "adm".into(), ..create("own", "of B") });
    b.sync();
    assert_eq!(b.fate(own), Some(Fate::Confirmed));
    world.settle(&mut [&mut a, &mut b]);
}
