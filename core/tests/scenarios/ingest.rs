//! ING: what arrives is kept once, whole, and cursors say exactly what is had.
//!
//! Not here, with the reason:
//! - ING-11: there is no metadata-only fetch; the session tells epoch and heads. The order of a page is tested here.
//! - ING-12: the order of commits is the Postgres server's matter.

use synchrotron_core::engine::{Committed, EngineError, Limits, Received};
use synchrotron_core::model::Cursor;
use synchrotron_core::network::memory::PageBounds;
use synchrotron_core::store::Fate;

use crate::actions::{Nothing, claim, create, create_in, pair, title};
use crate::fleet::{SHARED, World, audience_key, epoch};

/// There is no state between ingested and applied: log, rows and cursor move in one transaction.
#[test]
fn ing_02_ing_03_a_page_moves_log_rows_and_cursor_together() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "One"));
    a.sync();
    let page = b.page().expect("a page");
    assert_eq!((b.count("action_records"), b.count("notes"), b.cursor(SHARED)), (0, 0, 0));
    b.engine().integrate_page(page).expect("takes it");
    assert_eq!((b.count("action_records"), b.count("notes"), b.cursor(SHARED)), (1, 1, 1));
}

/// The same action comes live and by fetch: it has one effect.
#[test]
fn ing_04_what_comes_live_and_by_fetch_is_applied_once() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.listen();
    a.run(&create("n", "One"));
    a.sync();
    let page = b.page().expect("a page");
    let slice = b.slices().remove(0);
    assert!(matches!(b.engine().receive(slice.clone()).expect("takes it"), Received::Integrated(_)));
    let undo = b.count("local_undo");
    assert_eq!(b.engine().integrate_page(page).expect("takes it"), Committed::default());
    assert_eq!(b.engine().receive(slice).expect("takes it"), Received::Known);
    assert_eq!((b.count("action_records"), b.count("local_undo"), b.cursor(SHARED)), (1, undo, 1));
}

/// Old pages that are delivered again, from the very beginning, change nothing: explicit re-delivery.
#[test]
fn ing_05_a_page_that_is_delivered_again_is_not_applied_again() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let from_the_start = b.page().expect("a page");
    a.run(&create("n", "One"));
    a.run(&title("n", "Two"));
    a.sync();
    let old = b.page().expect("a page");
    b.sync();
    b.run(&title("n", "mine"));
    for page in [old.clone(), from_the_start, old] {
        assert_eq!(b.engine().integrate_page(page).expect("takes it"), Committed::default());
    }
    assert_eq!((b.title("n").as_str(), b.cursor(SHARED)), ("mine", 2));
}

/// A correction that is delivered again leads to no new record, here by a claim that lost its seat.
#[test]
fn ing_06_a_correction_that_is_delivered_again_makes_no_correction() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "free"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    b.run(&claim("n", "B"));
    a.run(&claim("n", "A"));
    a.sync();
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(world.corrections().len(), 1);
    let page = c.page().expect("a page");
    c.sync();
    c.engine().integrate_page(page).expect("takes it");
    assert_eq!(c.corrections(), 1);
    assert!(c.pending().is_empty());
    assert_eq!(c.title("n"), "B");
}

/// An action of two audiences waits, live, until the slices of both are here: neither rows nor cursors move before.
/// Completeness is by count and by slice, never "at least one entry".
#[test]
fn ing_07_a_partly_delivered_action_waits_and_holds_up_nothing_else() {
    let world = World::new();
    let audiences = ["p", "q"];
    let [mut a, mut b] = ["A", "B"].map(|name| world.device_in(name, &audiences));
    b.listen();
    a.run(&pair(("n", "p"), ("m", "q")));
    a.sync();
    let mut slices = b.slices();
    assert_eq!(slices.len(), 2);
    let (first, second) = (slices.remove(0), slices.remove(0));
    assert_eq!(b.engine().receive(first).expect("takes it"), Received::Waiting);
    assert_eq!((b.count("notes"), b.cursor("p"), b.cursor("q")), (0, 0, 0));
    let own = b.run(&create_in("p", "own", "works meanwhile"));
    assert_eq!(b.pending()[0].id, own);
    assert!(matches!(b.engine().receive(second).expect("takes it"), Received::Integrated(_)));
    assert_eq!((b.count("notes"), b.cursor("p"), b.cursor("q")), (3, 1, 1));
    assert!(b.pending().iter().all(|record| record.id == own), "and no correction");
}

/// An action with no rows is complete with none: it neither waits nor blocks.
#[test]
fn ing_07_act_10_an_action_without_rows_blocks_nothing() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let nothing = a.run(&Nothing {});
    a.run(&create("n", "One"));
    a.sync();
    assert_eq!(a.fate(nothing), Some(Fate::Confirmed));
    b.run(&create("m", "of B"));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.title("n").as_str(), a.title("m").as_str()), ("One", "of B"));
}

/// Two devices of one user get each other's work.
#[test]
fn ing_09_devices_of_one_user_get_each_others_work() {
    let world = World::new();
    let mut phone = world.device("A");
    let mut laptop = world.device_of("A", "A2");
    phone.run(&create("n", "of the phone"));
    laptop.run(&create("m", "of the laptop"));
    phone.sync();
    world.settle(&mut [&mut phone, &mut laptop]);
    assert_eq!((phone.title("m").as_str(), laptop.title("n").as_str()), ("of the laptop", "of the phone"));
}

/// An own pending action that comes back by fetch is accepted as the server has it: its number is filled in.
#[test]
fn ing_10_an_own_action_that_comes_back_is_no_longer_pending() {
    let world = World::new();
    let mut a = world.device("A");
    let own = a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    a.network.lose_next_outcome();
    a.send(&sent).expect_err("the answer is lost");
    a.fetch().expect("fetches");
    assert_eq!(a.fate(own), Some(Fate::Confirmed));
    assert!(a.pending().is_empty());
    assert_eq!((a.count("action_records"), a.count("notes")), (1, 1));
}

/// A page is in order of arrival, rows in sequence.
#[test]
fn ing_11_a_page_is_in_order_of_arrival() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    let late = a.run(&create("n", "One"));
    let early = b.run(&pair(("m", SHARED), ("o", SHARED)));
    b.sync();
    a.sync();
    let page = c.page().expect("a page");
    let ids: Vec<_> = page.records.iter().map(|logged| logged.record.id).collect();
    assert_eq!(ids, [early, late]);
    let sequences: Vec<u32> = page.records[0].rows.iter().map(|row| row.sequence).collect();
    assert_eq!(sequences, [0, 1]);
}

/// An audience that was gained later brings what was written before: cursors are per audience.
#[test]
fn ing_13_an_audience_gained_later_brings_its_past() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut b = world.device_in("B", &["p"]);
    a.run(&create_in("q", "old", "before B came"));
    a.run(&create_in("p", "n", "One"));
    a.sync();
    b.sync();
    assert_eq!((b.title("old").as_str(), b.cursor("p")), ("none", 2));
    world.allow("B", "q");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.title("old").as_str(), b.cursor("q")), ("before B came", 1));
}

/// A backlog comes in pages and goes in batches; a page's cursors never pass what it holds.
#[test]
fn ing_14_backlogs_travel_in_bounded_pages_and_batches() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    for n in 0..700 {
        a.run(&create(&format!("n{n}"), "One"));
    }
    let most = Limits::default().batch_records_max;
    assert_eq!(a.pending().len(), most, "one batch does not take all");
    a.sync();
    world.server.set_page_bounds(PageBounds { records_max: 64, ..PageBounds::default() });
    let page = b.page().expect("a page");
    assert!(page.more);
    assert_eq!(page.cursors[&audience_key(SHARED)], Cursor::new(64));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.count("notes"), 700);
}

/// A page of another history is refused before any of it is taken.
#[test]
fn ing_ep_02_a_page_of_another_history_is_refused_whole() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "One"));
    a.sync();
    let mut page = b.page().expect("a page");
    page.epoch = epoch(2);
    let refused = b.engine().integrate_page(page);
    assert_eq!(refused, Err(EngineError::EpochChanged { expected: epoch(1), actual: epoch(2) }));
    assert_eq!((b.count("action_records"), b.cursor(SHARED)), (0, 0));
}
