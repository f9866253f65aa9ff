//! U10, U11: audiences are gained and lost, with work under way.

use synchrotron_core::store::{Fate, QuarantineKind};

use crate::actions::{content, create_in, pair, title};
use crate::fleet::World;

/// B has p, with two actions pending; then it is let into q, which has a long past and newer work: after one sync all of q
/// is here, the pending work went up once, and late arrivals in q still go beneath what they should.
#[test]
fn u10_an_audience_is_gained_with_a_long_past_and_work_pending() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut late = world.device_in("L", &["q"]);
    let mut b = world.device_in("B", &["p"]);
    for n in 0..300 {
        a.run(&create_in("q", &format!("q{n}"), "old"));
    }
    a.run(&create_in("p", "n", "of p"));
    a.sync();
    late.sync();
    b.sync();
    let pending = [b.run(&title("n", "pending")), b.run(&content("n", "pending"))];
    late.run(&title("q0", "late, beneath"));
    a.run(&title("q0", "newer"));
    for n in 1..3 {
        a.run(&create_in("q", &format!("new{n}"), "newer"));
    }
    a.sync();
    world.allow("B", "q");
    b.sync();
    assert_eq!((b.count("notes"), b.cursor("q"), b.title("q0").as_str()), (303, 304, "newer"));
    assert!(pending.iter().all(|id| b.is_committed(*id)));
    assert_eq!(world.logged().iter().filter(|id| pending.contains(id)).count(), 2, "each once");
    late.sync();
    world.settle(&mut [&mut a, &mut b, &mut late]);
    assert_eq!(b.title("q0"), "newer");
}

/// B loses q with work pending in p, in q and in both: p's goes up; q's rows, log and undo are gone; what needed q is kept
/// for its author, can be exported, and is never sent. Back in q, the rows come from the server alone.
#[test]
fn u11_rls_12_an_audience_is_lost_with_work_pending() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut b = world.device_in("B", &["p", "q"]);
    a.run(&create_in("p", "n", "of p"));
    a.run(&create_in("q", "secret", "of q"));
    a.run(&pair(("n2", "p"), ("secret2", "q")));
    world.settle(&mut [&mut a, &mut b]);
    let in_p = b.run(&title("n", "goes up"));
    let in_q = b.run(&create_in("q", "m", "was mine"));
    let in_both = b.run(&pair(("n3", "p"), ("m3", "q")));
    world.revoke("B", "q");
    let committed = b.begin_session().expect("begins");
    assert!(committed.fates.contains_key(&in_q) && committed.fates.contains_key(&in_both));
    assert_eq!(b.value("SELECT count(*) FROM notes WHERE audience_key = 'q'"), Some(0.into()));
    for table in ["action_modified_rows", "local_undo"] {
        assert_eq!(b.count(&format!("{table} WHERE audience_key = 'q'")), 0, "{table}");
    }
    b.sync();
    assert_eq!((b.fate(in_p), b.title("n").as_str()), (Some(Fate::Confirmed), "goes up"));
    let quarantined = b.quarantined();
    assert_eq!(quarantined.iter().map(|action| action.id).collect::<Vec<_>>(), [in_q, in_both]);
    assert!(quarantined.iter().all(|action| action.kind == QuarantineKind::RejectedOnReplay));
    assert_eq!(b.engine().export_quarantine().expect("reads").len(), 2);
    assert!(!world.logged().contains(&in_q) && !world.logged().contains(&in_both));
    world.settle(&mut [&mut a, &mut b]);
    world.allow("B", "q");
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.title("secret").as_str(), b.title("m").as_str()), ("of q", "none"));
}

/// Nothing of a lost audience is received any more, live or fetched.
#[test]
fn u11_nothing_of_a_lost_audience_arrives() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let mut b = world.device_in("B", &["p", "q"]);
    world.settle(&mut [&mut a, &mut b]);
    b.listen();
    world.revoke("B", "q");
    a.run(&create_in("q", "secret", "of q"));
    a.run(&pair(("n", "p"), ("secret2", "q")));
    a.sync();
    let slices = b.slices();
    assert!(slices.iter().all(|slice| slice.audience_key.as_str() == "p"));
    b.begin_session().expect("begins");
    for slice in slices {
        b.engine().receive(slice).expect("takes it");
    }
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!((b.title("n").as_str(), b.count("notes")), ("pair", 1));
}
