//! HR, RB, EP: rows are taken from the server again. Pending work keeps its ids and runs again on them.
//!
//! Recovery is what a session finds necessary, or what an app asks for; either way it is one swap, and work is never lost.

use synchrotron_core::model::{ActionId, Hlc, Value};
use synchrotron_core::store::{Fate, QuarantineKind};
use synchrotron_core::wire::Outcome;

use crate::actions::{AddTask, DeleteProject, OpenProject, claim, content, create, title};
use crate::device::{Device, Trouble};
use crate::fleet::{SHARED, World, epoch};

fn epoch_of(device: &mut Device) -> synchrotron_core::model::Epoch {
    device.engine().fetch_request().expect("a session was begun").epoch
}

fn pending_ids(device: &mut Device) -> Vec<ActionId> {
    device.pending().into_iter().map(|record| record.id).collect()
}

/// B has written ten notes, of which the server has compacted five; A has seen one of them.
fn compacted(world: &World) -> [Device; 2] {
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n0", "One"));
    b.sync();
    a.sync();
    for n in 1..10 {
        b.run(&create(&format!("n{n}"), "One"));
    }
    b.sync();
    world.compact(5);
    [a, b]
}

/// Everything local is dropped: the server's rows are here, the own note is gone, and its action is kept in quarantine.
#[test]
fn hr_01_a_hard_resync_drops_local_work_into_quarantine() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n", "from server"));
    b.sync();
    let own = a.run(&create("m", "local"));
    a.engine().hard_resync().expect("drops");
    a.sync();
    assert!(a.pending().is_empty());
    assert_eq!((a.title("n").as_str(), a.title("m").as_str(), a.cursor(SHARED)), ("from server", "none", 1));
    assert_eq!((a.quarantined()[0].id, a.quarantined()[0].kind), (own, QuarantineKind::Dropped));
    world.settle(&mut [&mut a, &mut b]);
}

/// Another history, nothing pending: the next session takes it over.
#[test]
fn hr_03_another_history_is_taken_over() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n", "One"));
    world.settle(&mut [&mut a, &mut b]);
    world.restore(2, world.accepted());
    a.sync();
    assert_eq!((epoch_of(&mut a), a.title("n").as_str()), (epoch(2), "One"));
    world.settle(&mut [&mut a, &mut b]);
}

/// Records that this device needs are compacted away: it takes a snapshot instead.
#[test]
fn hr_04_a_device_behind_the_compaction_takes_a_snapshot() {
    let world = World::new();
    let [mut a, mut b] = compacted(&world);
    a.sync();
    assert_eq!((a.count("notes"), a.cursor(SHARED)), (10, 10));
    world.settle(&mut [&mut a, &mut b]);
}

/// A snapshot restores plain audience keys, references between tables and what is no longer there, and never moves the
/// clock back.
#[test]
fn hr_05_a_snapshot_restores_audiences_references_and_absences() {
    let world = World::new();
    let [mut a, mut b] = ["A", "B"].map(|name| world.device_in(name, &[SHARED, "project:p", "project:q"]));
    for project in ["p", "q"] {
        a.run(&OpenProject { project: project.into(), name: project.into() });
        a.run(&AddTask { task: format!("t of {project}"), project: project.into() });
    }
    a.run(&create("n", "plain audience"));
    world.settle(&mut [&mut a, &mut b]);
    b.run(&DeleteProject { project: "p".into() });
    b.sync();
    world.compact(world.accepted());
    a.skew_ms = 1_500;
    a.run(&title("n", "newest"));
    let clock = a.value("SELECT clock FROM client_sync_status");
    a.engine().rebase().expect("marks");
    a.sync();
    assert_eq!((a.count("projects"), a.count("tasks")), (1, 1));
    assert_eq!(a.value("SELECT audience_key FROM notes"), Some(SHARED.into()));
    let (Some(Value::Integer(before)), Some(Value::Integer(after))) =
        (clock, a.value("SELECT clock FROM client_sync_status"))
    else {
        unreachable!("clocks are integers")
    };
    assert!(after >= before);
    world.settle(&mut [&mut a, &mut b]);
}

/// A rebase keeps pending actions, their ids and their order; row ids stay, since they derive from those.
#[test]
fn rb_01_a_rebase_keeps_ids_and_order() {
    let world = World::new();
    let mut a = world.device("A");
    let ids = vec![a.run(&create("n", "base")), a.run(&title("n", "updated"))];
    a.engine().rebase().expect("marks");
    assert_eq!(a.title("n"), "updated", "until the snapshot is here, everything stays as it is");
    a.snapshot().expect("taken");
    assert_eq!((pending_ids(&mut a), a.title("n").as_str()), (ids.clone(), "updated"));
    a.sync();
    assert_eq!((world.logged(), world.server_value("notes", "n", "title")), (ids, Some("updated".into())));
}

/// Another history with work pending: the same actions go to it.
#[test]
fn rb_02_pending_work_goes_to_the_new_history() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n", "One"));
    world.settle(&mut [&mut a, &mut b]);
    let own = a.run(&create("m", "from client"));
    world.restore(2, world.accepted());
    a.sync();
    assert_eq!((epoch_of(&mut a), a.fate(own)), (epoch(2), Some(Fate::Confirmed)));
    assert_eq!(world.server_value("notes", "m", "title"), Some("from client".into()));
    world.settle(&mut [&mut a, &mut b]);
}

/// A history that lost what it had accepted gets it again from the device that made it: nothing lost.
#[test]
fn rb_02_u28_what_a_restored_server_lost_goes_there_again() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n", "kept"));
    let lost = a.run(&create("m", "lost by the server"));
    b.sync();
    world.settle(&mut [&mut a, &mut b]);
    world.restore(2, 1);
    assert_eq!(world.server_value("notes", "m", "title"), None);
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(world.server_value("notes", "m", "title"), Some("lost by the server".into()));
    assert_eq!((world.logged().contains(&lost), b.title("m").as_str()), (true, "lost by the server"));
}

/// Compaction with work pending: the snapshot comes beneath it, and it goes up.
#[test]
fn rb_03_pending_work_goes_up_after_a_compaction() {
    let world = World::new();
    let [mut a, mut b] = compacted(&world);
    let own = a.run(&create("m", "pending"));
    a.sync();
    assert_eq!((a.fate(own), a.count("notes")), (Some(Fate::Confirmed), 11));
    world.settle(&mut [&mut a, &mut b]);
}

/// A pending action whose tag this version no longer knows keeps its patch. The system before this one gave the whole
/// rebase up.
#[test]
fn rb_04_an_unknown_tag_does_not_stop_a_rebase() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "base"));
    a.sync();
    let unknown = a.run(&title("n", "by an older version"));
    let known = a.run(&content("n", "known"));
    a.restart(&["set_title_v1"]);
    a.engine().rebase().expect("marks");
    a.sync();
    assert_eq!((a.title("n").as_str(), a.content("n").as_str()), ("by an older version", "known"));
    assert_eq!((a.fate(unknown), a.fate(known)), (Some(Fate::Confirmed), Some(Fate::Confirmed)));
}

/// What cannot run on the server's rows is quarantined with its reason; the rest goes on.
#[test]
fn rb_04_what_cannot_run_again_is_quarantined() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "free"));
    world.settle(&mut [&mut a, &mut b]);
    b.run(&claim("n", "B"));
    b.sync();
    let loses = a.run(&claim("n", "A"));
    let goes_on = a.run(&content("n", "of A"));
    a.engine().rebase().expect("marks");
    a.sync();
    assert_eq!(a.fate(loses), Some(Fate::Rejected { reason: "it is taken".into() }));
    assert_eq!((a.fate(goes_on), a.title("n").as_str()), (Some(Fate::Confirmed), "B"));
    world.settle(&mut [&mut a, &mut b]);
}

/// A clock above the snapshot's floor is kept; one at or beneath it is given anew, in order, after all that was seen.
#[test]
fn rb_05_only_clocks_beneath_the_floor_are_given_anew() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.run(&create("n", "One"));
    b.sync();
    a.run(&create("m", "above the floor"));
    let clock = a.pending()[0].clock;
    a.engine().rebase().expect("marks");
    a.snapshot().expect("taken");
    assert_eq!(a.pending()[0].clock, clock);
    b.sync();
    b.run(&title("n", "newer than what is pending"));
    b.sync();
    a.run(&title("m", "second"));
    let before = pending_ids(&mut a);
    a.engine().rebase().expect("marks");
    a.snapshot().expect("taken");
    let floor = world.server.log().iter().map(|logged| logged.record.clock).max();
    let clocks: Vec<Hlc> = a.pending().iter().map(|record| record.clock).collect();
    assert!(clocks.iter().all(|clock| Some(*clock) > floor) && clocks.is_sorted());
    assert_eq!(pending_ids(&mut a), before);
    world.settle(&mut [&mut a, &mut b]);
}

/// The first session tells the history; another one in any answer stops the pass, and the next session recovers, once.
#[test]
fn ep_01_ep_02_another_history_stops_a_pass_and_the_next_session_recovers() {
    let world = World::new();
    let mut a = world.device("A");
    assert_eq!(epoch_of(&mut a), epoch(1));
    let own = a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    world.restore(2, 0);
    assert!(matches!(a.fetch(), Err(Trouble::Network(_))), "a fetch of the old history is refused");
    assert_eq!(a.send(&sent).expect("answers"), Outcome::EpochChanged { current: epoch(2) });
    assert!(a.conclude(&sent, &Outcome::EpochChanged { current: epoch(2) }).is_err());
    assert_eq!((epoch_of(&mut a), a.fate(own)), (epoch(1), None), "nothing was mixed in");
    a.sync();
    assert_eq!((epoch_of(&mut a), a.fate(own)), (epoch(2), Some(Fate::Confirmed)));
}

/// QUA-06, QUA-07, QUA-10: recovery neither waits for the app nor touches what is in quarantine. The system before this one
/// stopped, or lost it.
#[test]
fn qua_06_qua_07_qua_10_recovery_keeps_what_is_in_quarantine() {
    let world = World::new();
    let [mut a, mut b] = compacted(&world);
    let refused = a.run(&title("n0", "refused"));
    let sent = a.batch().expect("pending");
    let kind = synchrotron_core::wire::RejectionKind::Denied;
    let outcome = Outcome::Rejected { action: refused, kind, reason: "no".into() };
    a.conclude(&sent, &outcome).expect("concludes");
    let in_quarantine = a.quarantined();
    a.sync();
    assert_eq!((a.quarantined(), a.count("notes")), (in_quarantine.clone(), 10), "compaction");
    world.restore(2, world.accepted());
    a.sync();
    assert_eq!((a.quarantined(), epoch_of(&mut a)), (in_quarantine.clone(), epoch(2)), "another history");
    a.engine().rebase().expect("marks");
    a.sync();
    assert_eq!(a.quarantined(), in_quarantine, "a rebase");
    world.settle(&mut [&mut a, &mut b]);
}
