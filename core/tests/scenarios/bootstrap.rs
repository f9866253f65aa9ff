//! BOOT, U05, LATE-05, LATE-06: rows come as a snapshot where the log does not reach.
//!
//! Not here, with the reason:
//! - BOOT-03: there is no fallback to replaying the whole log: a snapshot that fails is tried again.
//! - BOOT-05: that a snapshot is one consistent read is the Postgres server's matter; devices take its cursors with it.

use synchrotron_core::engine::{Committed, Progress};
use synchrotron_core::store::Fate;
use synchrotron_core::wire::Outcome;

use crate::actions::{DeleteNote, content, create, title};
use crate::device::Device;
use crate::fleet::{SHARED, World};

/// A world with seven notes of A, and chunks of three rows.
fn seven_notes() -> (World, Device) {
    let world = World::new();
    world.server.set_snapshot_rows_max(3);
    let mut a = world.device("A");
    for n in 0..7 {
        a.run(&create(&format!("n{n}"), "hello"));
    }
    a.sync();
    (world, a)
}

/// A fresh device has the rows, no log, no undo, and nothing to send.
#[test]
fn boot_01_a_fresh_device_takes_rows_and_replays_nothing() {
    let (world, mut a) = seven_notes();
    let mut fresh = world.device("F");
    let committed = fresh.sync();
    assert_eq!((fresh.count("notes"), fresh.title("n3").as_str()), (7, "hello"));
    assert_eq!((fresh.count("action_records"), fresh.count("local_undo"), fresh.pending().len()), (0, 0, 0));
    assert_eq!(committed.tables.len(), 1, "the change feed names the table that came");
    world.settle(&mut [&mut a, &mut fresh]);
}

/// What comes after the snapshot comes by its cursors.
#[test]
fn boot_02_the_tail_follows_the_snapshot() {
    let (world, mut a) = seven_notes();
    let mut fresh = world.device("F");
    fresh.sync();
    a.run(&content("n0", "world"));
    a.sync();
    assert_eq!(fresh.page().expect("a page").records.len(), 1);
    fresh.sync();
    assert_eq!(fresh.content("n0"), "world");
    world.settle(&mut [&mut a, &mut fresh]);
}

/// A device that lost its database gets its own work back: it is in the rows.
#[test]
fn boot_03_a_device_that_lost_its_database_gets_its_own_work_back() {
    let (world, a) = seven_notes();
    drop(a);
    let mut again = world.device_of("A", "A2");
    again.sync();
    assert_eq!(again.count("notes"), 7);
    world.settle(&mut [&mut again]);
}

/// Chunks are bounded, tell how far they are, and until the last one nobody sees anything of them.
#[test]
fn boot_06_u05_rows_appear_at_once_with_the_last_chunk() {
    let (world, _a) = seven_notes();
    let mut fresh = world.device("F");
    for rows_done in [3, 6] {
        let chunk = fresh.chunk().expect("answers").expect("more follows");
        assert!(chunk.rows.len() <= 3);
        let progress = fresh.engine().take_chunk(&chunk).expect("takes it");
        assert_eq!(progress, Progress::Loading { rows_done, rows_total: 7 });
        assert_eq!((fresh.count("notes"), fresh.cursor(SHARED)), (0, 0), "no mix");
    }
    let last = fresh.chunk().expect("answers").expect("the last");
    assert!(matches!(fresh.engine().take_chunk(&last).expect("takes it"), Progress::Done(_)));
    assert_eq!((fresh.count("notes"), fresh.cursor(SHARED)), (7, 7));
}

/// Killed between any two chunks, the device goes on with the next chunk of the same snapshot, whatever was written since;
/// what was written since comes as the tail.
#[test]
fn u05_after_a_crash_a_snapshot_goes_on_where_it_stopped() {
    for killed_after in 1..3 {
        let (world, mut a) = seven_notes();
        let mut fresh = world.device("F");
        for _ in 0..killed_after {
            let chunk = fresh.chunk().expect("answers").expect("more follows");
            fresh.engine().take_chunk(&chunk).expect("takes it");
        }
        fresh.restart(&[]);
        a.run(&title("n0", "written meanwhile"));
        a.sync();
        let next = fresh.chunk().expect("answers").expect("more follows");
        assert_eq!((next.position.chunk, next.header.is_none()), (killed_after, true));
        world.settle(&mut [&mut a, &mut fresh]);
        assert_eq!((fresh.count("notes"), fresh.title("n0").as_str()), (7, "written meanwhile"));
    }
}

/// A snapshot that expired begins anew, and nothing of the old one stays.
#[test]
fn u05_an_expired_snapshot_begins_anew() {
    let (world, mut a) = seven_notes();
    let mut fresh = world.device("F");
    let chunk = fresh.chunk().expect("answers").expect("more follows");
    fresh.engine().take_chunk(&chunk).expect("takes it");
    world.server.expire_snapshots();
    for n in 0..7 {
        a.run(&DeleteNote { note: format!("n{n}") });
    }
    a.sync();
    world.settle(&mut [&mut a, &mut fresh]);
    assert_eq!(fresh.count("notes"), 0);
}

/// The swap fails, here because another program holds the file: the old state stays, whole, and the same chunk does it later.
#[test]
fn u05_a_swap_that_fails_leaves_the_old_state() {
    let (world, mut a) = seven_notes();
    world.server.set_snapshot_rows_max(100);
    let mut b = world.device("B");
    b.sync();
    let pending = b.run(&title("n0", "pending"));
    a.run(&title("n1", "newer"));
    a.sync();
    b.engine().rebase().expect("marks");
    let whole = b.chunk().expect("answers").expect("one chunk");
    let other = rusqlite::Connection::open(b.path()).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("holds the file");
    b.engine().take_chunk(&whole).expect_err("busy");
    assert_eq!((b.title("n0").as_str(), b.title("n1").as_str()), ("pending", "hello"), "the old state, whole");
    other.execute_batch("ROLLBACK").expect("lets go");
    assert!(matches!(b.engine().take_chunk(&whole).expect("takes it"), Progress::Done(_)));
    assert_eq!((b.title("n0").as_str(), b.title("n1").as_str()), ("pending", "newer"));
    assert_eq!(b.pending()[0].id, pending);
    assert_eq!(b.engine().take_chunk(&whole).map(|_| ()), Ok(()), "a chunk that comes twice");
    world.settle(&mut [&mut a, &mut b]);
}

/// An older action arrives at a device whose snapshot already holds the newer one: it cannot be replayed beneath rows, so the
/// audience's snapshot is taken again, and the newer title stays.
#[test]
fn late_05_a_late_arrival_beneath_a_snapshot_takes_it_again() {
    let (world, mut a) = seven_notes();
    let mut offline = world.device("O");
    offline.sync();
    let old = offline.run(&title("n0", "OLD"));
    a.run(&title("n0", "NEW"));
    a.sync();
    let mut fresh = world.device("F");
    fresh.sync();
    assert_eq!(fresh.title("n0"), "NEW");
    offline.sync();
    assert_eq!(offline.fate(old), Some(Fate::Confirmed));
    fresh.listen();
    let page = fresh.page().expect("a page");
    assert_eq!(fresh.engine().integrate_page(page).expect("takes it"), Committed::default());
    assert!(fresh.chunk().expect("answers").is_some(), "it needs its snapshot again");
    world.settle(&mut [&mut a, &mut offline, &mut fresh]);
    assert_eq!(fresh.title("n0"), "NEW");
}

/// An action older than what the server retains is refused as too old, gets a clock above the floor, and goes up: it is
/// never applied silently out of order.
#[test]
fn late_06_an_action_too_old_for_the_server_gets_a_new_clock() {
    let (world, mut a) = seven_notes();
    let mut b = world.device("B");
    b.sync();
    let old = b.run(&title("n0", "older than the horizon"));
    let clock = b.pending()[0].clock;
    a.run(&title("n0", "newer"));
    a.sync();
    b.fetch().expect("it is at the head");
    world.compact(world.accepted());
    let sent = b.batch().expect("pending");
    let outcome = b.send(&sent).expect("answers");
    assert!(matches!(outcome, Outcome::TooOld { .. }), "{outcome:?}");
    b.conclude(&sent, &outcome).expect("concludes");
    b.sync();
    assert!(b.is_committed(old));
    let logged = world.server.log().into_iter().find(|logged| logged.record.id == old).expect("accepted");
    assert!(logged.record.clock > clock);
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(a.title("n0"), "older than the horizon", "by its new clock it is the newest");
}
