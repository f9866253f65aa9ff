//! COR, SFO: what happens where replay does something else than the author did.
//!
//! The design: a replica never overrules an author for lack of knowledge. Where the system before this one let the last
//! replica win a shared column, here the author's value stands on every replica, and no correction is sent. What only a
//! replica has is added.
//!
//! COR-14 (the algebra of final row effects) is `patch::net` and `patch::effective`, tested there.

use synchrotron_core::model::{ActionId, Patch, RecordBody};
use synchrotron_core::store::Fate;
use synchrotron_core::wire::Outcome;

use crate::actions::{
    AddDeviceNote, CreateWithMetaOn, DeviceContent, SuffixOnA, SuffixOnATagsOnC, claim, content, create, pair,
};
use crate::device::Device;
use crate::fleet::{World, story};

fn suffixed(text: &str) -> SuffixOnA {
    SuffixOnA { note: "n".into(), content: text.into() }
}

fn with_meta_on(device: &str) -> CreateWithMetaOn {
    CreateWithMetaOn { note: "n".into(), device: device.into() }
}

/// A fleet that holds the note `n`.
fn holding<const N: usize>(world: &World, names: [&'static str; N]) -> [Device; N] {
    let mut devices = world.devices(names);
    devices[0].run(&create("n", "Base"));
    world.settle(&mut devices.iter_mut().collect::<Vec<_>>());
    devices
}

/// The author's value stands where replay differs, and nothing is sent about it.
#[test]
fn cor_01_cor_02_the_authors_value_stands_where_replay_differs() {
    let world = World::new();
    let [mut a, mut b] = holding(&world, ["A", "B"]);
    let action = a.run(&suffixed("Content"));
    a.sync();
    b.sync();
    assert_eq!(b.content("n"), "Content Suffix");
    assert_eq!((b.corrections(), b.pending().len()), (0, 0));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((world.corrections().len(), a.fate(action)), (0, Some(Fate::Confirmed)));
}

/// A correction is one record, the same everywhere, in effect on its maker at once and on others as it arrives.
#[test]
fn cor_03_cor_06_a_correction_is_one_record_everywhere() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&with_meta_on("B"));
    a.sync();
    b.fetch().expect("fetches");
    assert_eq!((b.count("note_admin_meta"), b.corrections()), (1, 1), "in effect before it is sent");
    b.sync();
    c.sync();
    let id = world.corrections()[0].record.id;
    for device in [&b, &c] {
        let own = device.count(&format!("action_records WHERE tag IS NULL AND id = x'{}'", id.as_uuid().simple()));
        assert_eq!((own, device.corrections(), device.count("note_admin_meta")), (1, 1, 1));
    }
    world.settle(&mut [&mut a, &mut b, &mut c]);
}

/// A column that only one replica's code sets is added; the author's column stays the author's.
#[test]
fn cor_05_a_column_that_only_replay_sets_is_added() {
    let world = World::new();
    let [mut a, mut b, mut c] = holding(&world, ["A", "B", "C"]);
    a.run(&SuffixOnATagsOnC { note: "n".into(), content: "Content".into() });
    a.sync();
    b.sync();
    c.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    for device in [&a, &b, &c] {
        assert_eq!((device.content("n").as_str(), device.tags("n").as_str()), ("Content Suffix", r#"["C"]"#));
    }
    let corrections = world.corrections();
    assert_eq!(corrections.len(), 1);
    assert_eq!(corrections[0].record.user_id, c.user);
}

/// What has been added is taken back and recomputed when something late comes beneath, never left behind.
#[test]
fn cor_06_an_unsent_correction_is_recomputed_when_something_comes_beneath() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    c.run(&create("late", "beneath"));
    a.run(&with_meta_on("B"));
    a.sync();
    b.fetch().expect("fetches");
    let made: Vec<ActionId> = b.pending().iter().map(|record| record.id).collect();
    c.sync();
    b.fetch().expect("fetches what is late");
    let remade: Vec<ActionId> = b.pending().iter().map(|record| record.id).collect();
    assert_eq!((made.len(), made), (1, remade), "the same content is the same record");
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(world.corrections().len(), 1);
}

/// A row that only replay creates is added, once, for everybody and for the server.
#[test]
fn cor_08_cor_09_extra_rows_of_a_replay_become_an_additive_correction() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&with_meta_on("B"));
    a.sync();
    b.sync();
    c.sync();
    world.settle(&mut [&mut a, &mut b, &mut c]);
    let corrections = world.corrections();
    assert_eq!(corrections.len(), 1);
    assert_eq!(story(&corrections[0].rows)[0].split('{').next(), Some("INSERT note_admin_meta.meta of n "));
    for device in [&a, &b, &c] {
        assert_eq!(device.count("note_admin_meta"), 1);
    }
}

/// What replay leaves out is set from the patch: whole rows, and single columns.
#[test]
fn cor_10_what_replay_leaves_out_is_set_from_the_patch() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&with_meta_on("A"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!((b.count("note_admin_meta"), b.corrections()), (1, 0));
    c.run(&SuffixOnATagsOnC { note: "n".into(), content: "two columns".into() });
    c.sync();
    b.sync();
    assert_eq!((b.content("n").as_str(), b.tags("n").as_str()), ("two columns", r#"["C"]"#));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(world.corrections().len(), 0);
}

/// Derived ids: a replay that inserts other content makes no second row; the author's content stands.
#[test]
fn cor_11_did_08_divergent_inserts_are_one_row() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&AddDeviceNote { title: "T".into() });
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.count("notes"), b.count("notes")), (1, 1));
    assert_eq!(b.value("SELECT content FROM notes"), Some("Base-A".into()));
    assert_eq!(world.corrections().len(), 0);
}

/// Three devices run code that names its device: the author's value stands on all of them, the last replica included, and
/// further passes send nothing. The system before this one left the emitter of the last correction apart.
#[test]
fn cor_12_cor_13_sfo_01_sfo_02_an_impure_column_keeps_its_authors_value_everywhere() {
    let world = World::new();
    let mut devices = holding(&world, ["S", "A", "B"]);
    devices[0].run(&DeviceContent { note: "n".into() });
    for index in [0, 1, 1, 2, 1, 2] {
        devices[index].sync();
        world.pass_ms(1);
    }
    for device in &devices {
        assert_eq!((device.content("n").as_str(), device.corrections()), ("Base-S", 0));
    }
    let before = world.server.log().len();
    world.settle(&mut devices.iter_mut().collect::<Vec<_>>());
    assert_eq!(world.server.log().len(), before, "a fixed point");
}

/// Two authors write one column: the later one's value stands everywhere, whoever replays.
#[test]
fn sfo_03_of_two_authors_the_later_one_stands_on_every_replica() {
    let world = World::new();
    let [mut a, mut b] = holding(&world, ["A", "B"]);
    a.run(&DeviceContent { note: "n".into() });
    a.sync();
    b.run(&DeviceContent { note: "n".into() });
    b.sync();
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((a.content("n"), b.content("n")), ("Base-B".into(), "Base-B".into()));
}

/// A received correction is a patch: it makes no correction of itself.
#[test]
fn cor_15_a_correction_makes_no_correction() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&with_meta_on("B"));
    a.sync();
    b.sync();
    c.sync();
    assert!(c.pending().is_empty());
    a.sync();
    assert!(a.pending().is_empty());
    assert_eq!(world.corrections().len(), 1);
}

/// A correction names the one action that it amends, is bounded by that action's rows, and has a clock of its own after
/// everything that its maker had seen.
#[test]
fn cor_16_a_correction_names_one_action_and_has_a_clock_after_all_seen() {
    let world = World::new();
    let [mut a, mut b] = holding(&world, ["A", "B"]);
    let action = a.run(&CreateWithMetaOn { note: "m".into(), device: "B".into() });
    for n in 0..50 {
        a.run(&content("n", &format!("more {n}")));
    }
    a.sync();
    b.sync();
    let correction = world.corrections().remove(0);
    let newest = world.server.log().into_iter().filter(|logged| logged.record.user_id == a.user);
    assert!(newest.map(|logged| logged.record.clock).max() < Some(correction.record.clock));
    let RecordBody::Correction { amends, .. } = correction.record.body else { unreachable!("a correction") };
    assert_eq!((amends.action_id, correction.rows.len()), (action, 1));
}

/// Changes are told apart: an addition leaves its author's action confirmed with what it did plus what was added, told as
/// a change; what a rule took away carries the rule's words.
#[test]
fn cor_17_an_app_can_read_what_was_changed_and_why() {
    let world = World::new();
    let [mut a, mut b] = holding(&world, ["A", "B"]);
    let added_to = a.run(&CreateWithMetaOn { note: "m".into(), device: "B".into() });
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(a.fate(added_to), Some(Fate::Changed { reason: None }));
    a.run(&crate::actions::title("n", "free"));
    world.settle(&mut [&mut a, &mut b]);
    b.run(&claim("n", "B"));
    let taken = a.run(&claim("n", "A"));
    a.sync();
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(a.fate(taken), Some(Fate::Changed { reason: Some("it is taken".into()) }));
}

/// Two devices that find the same addition before they hear of each other make one record, not two.
#[test]
fn cor_18_equal_corrections_of_two_devices_collapse_into_one() {
    let world = World::new();
    let [mut a, mut b, mut twin] = world.devices(["A", "B", "B2"]);
    a.run(&with_meta_on("B"));
    a.sync();
    b.fetch().expect("fetches");
    twin.fetch().expect("fetches");
    let (of_b, of_twin) = (b.batch().expect("a correction"), twin.batch().expect("a correction"));
    assert_eq!(of_b.batch.records[0].id, of_twin.batch.records[0].id);
    assert!(matches!(b.send(&of_b), Ok(Outcome::Accepted { .. })));
    assert!(matches!(twin.send(&of_twin), Ok(Outcome::Accepted { .. })), "it is there already");
    world.settle(&mut [&mut a, &mut b, &mut twin]);
    assert_eq!(world.corrections().len(), 1);
}

/// Additions, and something older beneath them, in every order of syncs: all end alike, and stay so. (Whether what only
/// C's impure code adds survives depends on who may judge it once something came late beneath; that all agree does not.)
#[test]
fn cor_19_every_order_of_syncs_ends_alike_at_a_fixed_point() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let world = World::new();
        let mut devices = holding(&world, ["A", "B", "C"]);
        devices[2].run(&content("n", "older, of C"));
        devices[0].run(&SuffixOnATagsOnC { note: "n".into(), content: "of A".into() });
        devices[1].run(&CreateWithMetaOn { note: "m".into(), device: "C".into() });
        for index in order {
            devices[index].sync();
        }
        world.settle(&mut devices.iter_mut().collect::<Vec<_>>());
        let before = world.server.log().len();
        world.settle(&mut devices.iter_mut().rev().collect::<Vec<_>>());
        assert_eq!(world.server.log().len(), before, "order {order:?} has no fixed point");
        assert_eq!(devices[1].content("n"), "of A Suffix", "order {order:?}");
    }
}

/// A partly visible action is applied from its visible rows and never run: nothing of the other audience appears, nothing
/// is sent about it, and own work keeps going up.
#[test]
fn cor_20_a_partly_visible_action_is_never_run() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut b = world.device_in("B", &["p"]);
    a.run(&pair(("n", "p"), ("secret", "q")));
    a.sync();
    b.sync();
    assert_eq!((b.title("n").as_str(), b.title("secret").as_str()), ("pair", "none"));
    assert!(b.pending().is_empty());
    let own = b.run(&crate::actions::create_in("p", "own", "of B"));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.fate(own), Some(Fate::Confirmed));
    let rows: Vec<Patch> = world.corrections().into_iter().flat_map(|correction| correction.rows).collect();
    assert_eq!(rows, []);
}
