//! HG: who has not seen what others wrote fetches first.
//!
//! Not here, with the reason:
//! - HG-07: pauses between tries are the driver's, tested with its backoff.
//! - HG-08: two uploads on two connections are the Postgres server's matter.

use synchrotron_core::engine::Concluded;
use synchrotron_core::model::Cursor;
use synchrotron_core::store::Fate;
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::actions::{create, create_in};
use crate::fleet::{SHARED, World, audience_key};

/// An upload on a stale basis is refused with the heads, and keeps nothing.
#[test]
fn hg_01_hg_05_an_upload_behind_the_head_is_refused_with_the_heads() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let own = a.run(&create("m", "Client note"));
    b.run(&create("n", "Server note"));
    b.sync();
    let sent = a.batch().expect("pending");
    let Ok(Outcome::BehindHead { heads }) = a.send(&sent) else { unreachable!("A has not seen B's note") };
    assert_eq!(heads.get(&audience_key(SHARED)), Some(&Cursor::new(1)));
    assert!(matches!(a.conclude(&sent, &Outcome::BehindHead { heads }), Ok(Concluded::Fetch)));
    assert_eq!((world.server.log().len(), a.fate(own)), (1, None));
    assert_eq!(a.pending().len(), 1);
}

/// After a fetch the same work goes up.
#[test]
fn hg_02_after_a_fetch_the_same_work_goes_up() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    a.run(&create("m", "Client note"));
    b.run(&create("n", "Server note"));
    b.sync();
    let sent = a.batch().expect("pending");
    assert!(matches!(a.send(&sent), Ok(Outcome::BehindHead { .. })));
    a.sync();
    assert_eq!(world.server.log().len(), 2);
    world.settle(&mut [&mut a, &mut b]);
}

/// Others are faster between the fetch and the upload: one pass fetches again and goes on.
#[test]
fn hg_03_one_pass_fetches_again_and_goes_on() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let own = a.run(&create("m", "older"));
    a.fetch().expect("nothing yet");
    b.run(&create("n", "newer"));
    b.sync();
    let sent = a.batch().expect("pending");
    let outcome = a.send(&sent).expect("answers");
    assert!(matches!(a.conclude(&sent, &outcome), Ok(Concluded::Fetch)));
    a.fetch().expect("what was missing");
    let sent = a.batch().expect("still pending");
    let outcome = a.send(&sent).expect("answers");
    assert!(matches!(a.conclude(&sent, &outcome), Ok(Concluded::Settled(_))));
    assert_eq!((world.server.log().len(), a.fate(own)), (2, Some(Fate::Confirmed)));
}

/// The gate counts only what the uploader can see.
#[test]
fn hg_06_what_a_user_cannot_see_does_not_hold_it_up() {
    let world = World::new();
    let mut a = world.device_in("A", &["p"]);
    let mut b = world.device_in("B", &["q"]);
    a.run(&create_in("p", "n", "invisible to B"));
    a.sync();
    b.run(&create_in("q", "m", "of B"));
    let sent = b.batch().expect("pending");
    assert!(matches!(b.send(&sent), Ok(Outcome::Accepted { .. })));
}

/// A user who was taken out of the audience is not held up by the gate either, but may not write there: that one action is
/// refused. Here the design decides: what was pending goes to quarantine, nothing of it reaches the server.
#[test]
fn hg_06_a_revoked_users_late_upload_is_denied() {
    let world = World::new();
    let mut a = world.device_in("A", &["p"]);
    let mut b = world.device_in("B", &["p"]);
    a.run(&create_in("p", "n", "of A"));
    a.sync();
    b.run(&create_in("p", "m", "of B"));
    let sent = b.batch().expect("pending");
    world.revoke("B", "p");
    let outcome = b.send(&sent).expect("answers");
    assert!(matches!(outcome, Outcome::Rejected { kind: RejectionKind::Denied, .. }), "{outcome:?}");
    assert_eq!(world.server.log().len(), 1);
}
