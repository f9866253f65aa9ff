//! U04, U07, U08, U09, U14, U20: what networks, clocks and careless code do.
//!
//! Random stories print their seed; `SCENARIO_SEED=7 cargo test -p synchrotron-core --test scenarios u07` runs one again.

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use synchrotron_core::engine::{Concluded, Received};
use synchrotron_core::model::ActionId;
use synchrotron_core::store::Fate;
use synchrotron_core::wire::{Outcome, Slice};

use crate::actions::{Roll, SuffixOnATagsOnC, content, create, create_in, pair, title};
use crate::device::Device;
use crate::fleet::{BEGIN_MS, SHARED, World};

/// The upload succeeds, the device is killed before it hears so; others go on. After the restart it is behind, fetches,
/// and what comes back is its own work: no second record, no second effect, the order as it was.
#[test]
fn u04_a_lost_acknowledgement_then_the_world_moves() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    let own = [a.run(&create("n", "of A")), a.run(&content("n", "text of A"))];
    let sent = a.batch().expect("pending");
    a.network.lose_next_outcome();
    a.send(&sent).expect_err("the answer is lost");
    a.restart(&[]);
    b.sync();
    let of_b = b.run(&title("n", "of B"));
    b.sync();
    c.sync();
    let of_c = c.run(&title("n", "of C"));
    c.sync();
    assert_eq!(own.map(|id| a.fate(id)), [None, None], "unknown is unknown");
    let stale = a.batch().expect("still pending");
    let known = a.send(&stale).expect("answers");
    let Outcome::Accepted { ids } = &known else { unreachable!("the server has both, behind or not: {known:?}") };
    assert_eq!(ids.values().map(|number| number.get()).collect::<Vec<_>>(), [1, 2], "the numbers that they got");
    a.sync();
    assert_eq!(world.logged(), [own[0], own[1], of_b, of_c]);
    assert_eq!(own.map(|id| a.fate(id)), [Some(Fate::Confirmed), Some(Fate::Confirmed)]);
    assert_eq!((a.title("n").as_str(), a.content("n").as_str()), ("of C", "text of A"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
}

/// The answer is lost, then a rebase: the snapshot knows the action, and it is confirmed without being sent again.
#[test]
fn u04_a_lost_acknowledgement_then_a_rebase_confirms_once() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let own = a.run(&create("n", "of A"));
    let sent = a.batch().expect("pending");
    a.network.lose_next_outcome();
    a.send(&sent).expect_err("the answer is lost");
    b.sync();
    b.run(&title("n", "of B"));
    b.sync();
    a.restart(&[]);
    a.engine().rebase().expect("marks");
    a.snapshot().expect("taken");
    assert_eq!((a.fate(own), a.pending().len()), (Some(Fate::Confirmed), 0));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((world.server.log().len(), a.title("n").as_str()), (2, "of B"));
}

/// The answer is lost, then everything local is dropped: there is no second record and no second effect.
#[test]
fn u04_a_lost_acknowledgement_then_a_hard_resync_has_one_effect() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "of A"));
    let sent = a.batch().expect("pending");
    a.network.lose_next_outcome();
    a.send(&sent).expect_err("the answer is lost");
    a.engine().hard_resync().expect("drops");
    world.settle(&mut [&mut a]);
    assert_eq!((world.server.log().len(), a.title("n").as_str()), (1, "of A"));
}

fn for_each_seed(test: &str, run: impl Fn(&mut StdRng)) {
    let one = std::env::var("SCENARIO_SEED").ok().map(|seed| seed.parse().expect("SCENARIO_SEED is a number"));
    for seed in one.map_or(0..12, |seed: u64| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut StdRng::seed_from_u64(seed))));
        let rerun = format!("SCENARIO_SEED={seed} cargo test -p synchrotron-core --test scenarios {test}");
        assert!(outcome.is_ok(), "seed {seed} failed; run it again with: {rerun}");
    }
}

/// Three devices write, late work included, while one listens: the slices of all that.
fn a_busy_day(world: &World, listener: &mut Device) -> Vec<Slice> {
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    listener.listen();
    a.run(&create("n", "free"));
    a.run(&pair(("m", SHARED), ("own", "user:A")));
    for device in [&mut a, &mut b, &mut c] {
        device.sync();
    }
    for n in 0..6 {
        a.run(&title("n", &format!("A{n}")));
        b.run(&content("n", &format!("B{n}")));
        c.run(&SuffixOnATagsOnC { note: "m".into(), content: format!("C{n}") });
        [&mut a, &mut b, &mut c][n % 3].sync();
    }
    world.settle(&mut [&mut a, &mut b, &mut c]);
    listener.slices()
}

/// Slices come up to three times each, in any order, mixed with fetches: the end is that of one ordered delivery, and no
/// correction is made that it would not make.
#[test]
fn u07_duplicates_and_disorder_end_as_one_ordered_delivery() {
    let world = World::new();
    let mut ordered = world.device("O");
    let fleet = ["R0", "R1", "R2", "R3", "R4", "R5", "R6", "R7", "R8", "R9", "RA", "RB"];
    let receivers = std::cell::RefCell::new(world.devices(fleet).into_iter());
    let slices = a_busy_day(&world, &mut ordered);
    for slice in &slices {
        let received = ordered.engine().receive(slice.clone()).expect("takes it");
        assert!(matches!(received, Received::Integrated(_)), "in order, every slice is taken: {received:?}");
    }
    for_each_seed("u07", |random| {
        let mut wild = receivers.borrow_mut().next().expect("one for each seed");
        let mut mess: Vec<&Slice> = slices.iter().flat_map(|slice| vec![slice; random.random_range(1..=3)]).collect();
        mess.shuffle(random);
        for slice in mess {
            let received = wild.engine().receive(slice.clone()).expect("takes it or leaves it");
            if received == Received::Gap && random.random_bool(0.3) {
                wild.fetch().expect("fetches");
            }
        }
        wild.fetch().expect("fetches what was missing");
        assert_eq!(wild.all_rows(), ordered.all_rows());
        let log = "SELECT id, server_ingest_id FROM action_records ORDER BY id";
        assert_eq!(wild.rows(log), ordered.rows(log), "the same records, each once");
        assert_eq!((wild.cursor(SHARED), wild.pending().len()), (ordered.cursor(SHARED), 0));
    });
}

/// Two of three parts of an action are here: it is neither applied nor complete, whatever order they come in. Local work
/// goes on, and a fetch completes it. Rows never come before their record: a slice carries both.
#[test]
fn u08_a_partly_delivered_action_is_completed_by_a_fetch() {
    let world = World::new();
    let [mut a, mut b] = ["A", "B"].map(|name| world.device_in(name, &["p", "q", "r"]));
    for lost in 0..2 {
        b.listen();
        let (n, m) = (format!("n{lost}"), format!("m{lost}"));
        a.run(&pair((&n, "p"), (&m, "q")));
        a.sync();
        let mut slices = b.slices();
        slices.remove(lost);
        assert_eq!(b.engine().receive(slices.remove(0)).expect("takes it"), Received::Waiting);
        assert_eq!((b.title(&n).as_str(), b.title(&m).as_str()), ("none", "none"));
        b.restart(&[]);
        let own = b.run(&create_in("r", &format!("own{lost}"), "works meanwhile"));
        b.sync();
        assert_eq!((b.title(&n).as_str(), b.title(&m).as_str()), ("pair", "pair"));
        assert_eq!(b.fate(own), Some(Fate::Confirmed));
        world.settle(&mut [&mut a, &mut b]);
    }
    assert_eq!(world.corrections().len(), 0);
}

/// A member of one of two audiences sees its part only; nothing is corrected or denied; the rest comes with membership.
#[test]
fn u09_a_partly_visible_action_is_completed_by_membership() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut b = world.device_in("B", &["p"]);
    b.listen();
    a.run(&pair(("n", "p"), ("m", "q")));
    a.sync();
    let live = b.slices().remove(0);
    assert!(matches!(b.engine().receive(live).expect("takes it"), Received::Integrated(_)), "it waits for nothing");
    b.sync();
    assert_eq!((b.title("n").as_str(), b.title("m").as_str()), ("pair", "none"));
    assert_eq!(b.count("action_modified_rows"), 1, "no row of q is stored");
    assert!(b.pending().is_empty() && b.quarantined().is_empty());
    world.allow("B", "q");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(b.title("m"), "pair");
    assert_eq!(world.corrections().len(), 0);
}

/// A wall clock goes back a day, stands still, and jumps a year ahead: own actions keep their order, what is too far ahead
/// is refused with the bound, and nobody else's clock follows.
#[test]
fn u14_wall_clock_jumps_never_reorder_own_actions() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("n", "0"));
    let day = 24 * 3_600_000;
    let mut ids: Vec<ActionId> = Vec::new();
    for (n, skew_ms) in [0, -day, -day, 30_000, -day, 0].into_iter().enumerate() {
        a.skew_ms = skew_ms;
        ids.push(a.run(&title("n", &n.to_string())));
        if n % 2 == 1 {
            a.sync();
        }
    }
    a.sync();
    let mut log = world.server.log();
    log.sort_by_key(|logged| logged.record.position());
    assert_eq!(log[1..].iter().map(|logged| logged.record.id).collect::<Vec<_>>(), ids);
    a.skew_ms = 365 * day;
    let ahead = a.run(&title("n", "from next year"));
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    let (server_time_ms, max_ahead_ms) = (world.now_ms(), 60_000);
    assert_eq!(outcome, Outcome::ClockAhead { server_time_ms, max_ahead_ms }, "refused, with the bound");
    assert!(matches!(a.conclude(&sent, &outcome), Ok(Concluded::Restamped(_))));
    let restamped = a.batch().expect("kept").batch.records;
    assert_eq!(restamped.iter().map(|record| record.id).collect::<Vec<_>>(), [ahead], "the same action");
    assert_eq!(restamped[0].clock.millis(), server_time_ms);
    a.sync();
    assert!(a.is_committed(ahead), "one restamp is enough");
    b.sync();
    b.run(&content("n", "of B"));
    let clock = b.pending()[0].clock.millis();
    assert!((BEGIN_MS..world.now_ms() + 60_000).contains(&clock));
}

/// An action that does something else each time it runs, on three devices, with late work beneath it: its author's code
/// may judge once per late arrival, and then nothing moves any more.
#[test]
fn u20_a_non_deterministic_action_ends_in_a_fixed_point() {
    let world = World::new();
    let [mut a, mut b, mut c] = world.devices(["A", "B", "C"]);
    a.run(&create("n", "Base"));
    world.settle(&mut [&mut a, &mut b, &mut c]);
    for n in 0..4 {
        c.run(&title("n", &format!("late {n}")));
        a.run(&Roll { note: "n".into() });
        b.run(&Roll { note: "n".into() });
        for device in [&mut a, &mut b, &mut c] {
            device.sync();
        }
    }
    world.settle(&mut [&mut a, &mut b, &mut c]);
    let rolls = 8;
    assert!(world.corrections().len() <= rolls, "{} corrections of {rolls} rolls", world.corrections().len());
    let before = world.server.log().len();
    world.settle(&mut [&mut c, &mut b, &mut a]);
    assert_eq!(world.server.log().len(), before, "no ping-pong");
}

/// What a batch of an action was judged on may be gone: its outcome is void, and nothing is concluded twice.
#[test]
fn u04_an_outcome_that_comes_twice_concludes_once() {
    let world = World::new();
    let mut a = world.device("A");
    let id = a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    let Ok(Concluded::Settled(first)) = a.conclude(&sent, &outcome) else { unreachable!("accepted") };
    assert_eq!(first.fates.get(&id), Some(&Fate::Confirmed));
    let Ok(Concluded::Settled(second)) = a.conclude(&sent, &outcome) else { unreachable!("accepted") };
    assert!(second.fates.is_empty() && second.rows.is_empty());
}
