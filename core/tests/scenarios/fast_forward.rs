//! FF: remote work arrives where nothing, or nothing older, stands in its way.
//!
//! FF-06's marker part is not here: there are no rollback markers.

use synchrotron_core::engine::Committed;

use crate::actions::{create, title};
use crate::device::Device;
use crate::fleet::{SHARED, World};

/// A new note travels from one device to the other.
#[test]
fn ff_01_a_new_note_travels() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let id = a.run(&create("n", "One"));
    assert!(a.sync().fates.contains_key(&id), "one action went");
    assert_eq!(b.sync().rows.len(), 1, "one row came");
    assert_eq!((a.title("n"), b.title("n")), ("One".into(), "One".into()));
}

/// Replay that does exactly the patch leaves no correction and nothing to send.
#[test]
fn ff_02_a_remote_action_is_run_and_leaves_nothing_to_send() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let id = a.run(&create("n", "One"));
    a.sync();
    b.sync();
    assert_eq!(b.count(&format!("action_records WHERE id = x'{}'", id.as_uuid().simple())), 1);
    assert_eq!((b.corrections(), b.pending().len()), (0, 0));
    assert_eq!(b.value("SELECT user_id FROM notes"), Some("A".into()), "its author's row, not the replica's");
    assert_eq!(world.logged(), [id]);
}

/// Remote work that sorts after everything pending rewinds nothing, and both end everywhere.
#[test]
fn ff_03_work_that_sorts_after_everything_pending_keeps_it_in_place() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let older = a.run(&create("n", "of A"));
    let newer = b.run(&create("m", "of B"));
    b.sync();
    a.sync();
    assert_eq!(world.logged(), [newer, older], "two records, no others");
    world.settle(&mut [&mut a, &mut b]);
    let clock = |id| world.server.log().into_iter().find(|logged| logged.record.id == id).expect("logged").record.clock;
    assert!(clock(older) < clock(newer));
}

/// The order counts also between pending work that failed to upload and what came meanwhile: late work goes beneath.
#[test]
fn ff_03_late_work_goes_beneath_what_is_applied_also_with_work_pending() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    c.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    a.run(&create("own", "pending"));
    b.run(&title("n", "R1"));
    c.run(&title("n", "R2"));
    c.sync();
    a.fetch().expect("fetches; the upload fails");
    assert_eq!(a.title("n"), "R2");
    b.sync();
    a.fetch().expect("fetches R1, which is late");
    assert_eq!(a.title("n"), "R2", "the later write keeps its say");
    world.settle(&mut [&mut a, &mut b, &mut c]);
}

/// Nothing new changes nothing.
#[test]
fn ff_04_a_sync_with_nothing_to_do_changes_nothing() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "One"));
    world.settle(&mut [&mut a, &mut b]);
    let before = (world.server.log().len(), b.cursor(SHARED), b.count("local_undo"));
    assert_eq!(b.sync(), Committed::default());
    assert_eq!((world.server.log().len(), b.cursor(SHARED), b.count("local_undo")), before);
}

/// An app too old to know a tag applies the patch, keeps working, and replays it once it knows it. The system before this
/// one stopped until the upgrade.
#[test]
fn ff_05_u18_an_unknown_tag_is_applied_by_its_patch_and_stops_nothing() {
    let world = World::new();
    let mut a = world.device("A");
    let mut old = Device::open(&world, "B", "B", &["set_title_v1"]);
    world.allow("B", SHARED);
    for n in 0..10 {
        if n == 5 {
            a.run(&title("n0", "by an unknown tag"));
        } else {
            a.run(&create(&format!("n{n}"), "One"));
        }
    }
    let late = world.device("C");
    a.sync();
    old.sync();
    assert_eq!((old.title("n0").as_str(), old.count("notes")), ("by an unknown tag", 9));
    let own = old.run(&create("own", "of B"));
    old.sync();
    assert!(world.logged().contains(&own), "its own work goes on");
    let mut late = late;
    late.skew_ms = -1_000;
    late.run(&create("late", "beneath all"));
    late.sync();
    old.sync();
    assert_eq!(old.title("n0"), "by an unknown tag", "and rewinding past it keeps its patch");
    old.restart(&[]);
    a.skew_ms = -2_000;
    world.settle(&mut [&mut a, &mut old, &mut late]);
    assert_eq!(world.corrections().len(), 0, "no storm of corrections after the upgrade");
}

/// Actions that arrive together run in the order of their clocks, not of their arrival.
#[test]
fn ff_06_arrivals_run_in_the_order_of_their_clocks() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    a.run(&title("n", "older"));
    b.run(&title("n", "newer"));
    b.sync();
    a.sync();
    c.sync();
    assert_eq!(c.title("n"), "newer");
    world.settle(&mut [&mut a, &mut b, &mut c]);
}

/// One pass is one transaction: if it cannot be kept, nothing of it is. Here another program holds the file.
#[test]
fn ff_07_a_pass_that_cannot_be_kept_leaves_nothing() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "One"));
    a.sync();
    let page = b.page().expect("a page");
    let other = rusqlite::Connection::open(b.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("holds the file");
    b.engine().integrate_page(page.clone()).expect_err("busy");
    assert_eq!((b.count("notes"), b.count("action_records"), b.cursor(SHARED)), (0, 0, 0));
    other.execute_batch("ROLLBACK").expect("lets go");
    b.engine().integrate_page(page).expect("takes it");
    assert_eq!((b.count("notes"), b.cursor(SHARED)), (1, 1));
}
