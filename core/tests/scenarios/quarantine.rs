//! QUA: what the server refuses is kept for its author, one action at a time; everything else goes on.
//!
//! The design: quarantine is per action with what depends on it, never a stop of all uploads; and no failure of
//! authentication ever leads there.
//!
//! Not here, with the reason:
//! - QUA-05: there is no second stage that quarantines everything; a refusal names its record.
//! - QUA-06, QUA-07, QUA-10: what recovery does with quarantined work is with the recoveries (`resync`).

use synchrotron_core::engine::{Concluded, ExecuteInput};
use synchrotron_core::model::ActionId;
use synchrotron_core::store::{Fate, QuarantineKind};
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::actions::{claim, content, create, create_in, title};
use crate::device::{Device, Trouble};
use crate::fleet::World;

/// What a server that refuses one record says.
fn refusing(action: ActionId, kind: RejectionKind) -> Outcome {
    Outcome::Rejected { action, kind, reason: "the server says no".into() }
}

fn refuse(device: &mut Device, action: ActionId, kind: RejectionKind) {
    let sent = device.batch().expect("pending");
    let concluded = device.conclude(&sent, &refusing(action, kind)).expect("concludes");
    assert!(matches!(concluded, Concluded::Settled(_)));
}

/// A denied action is quarantined alone, its rows are gone, and the sync itself succeeds.
#[test]
fn qua_01_a_denied_action_is_quarantined_alone() {
    let world = World::new();
    let mut a = world.device_in("A", &["p", "q"]);
    let denied = a.run(&create_in("q", "n", "denied"));
    let fine = a.run(&create_in("p", "m", "fine"));
    let sent = a.batch().expect("pending");
    world.revoke("A", "q");
    let outcome = a.send(&sent).expect("answers");
    assert!(matches!(outcome, Outcome::Rejected { action, kind: RejectionKind::Denied, .. } if action == denied));
    a.conclude(&sent, &outcome).expect("concludes");
    a.sync();
    assert!(matches!(a.fate(denied), Some(Fate::Rejected { .. })));
    assert_eq!((a.fate(fine), a.title("n").as_str()), (Some(Fate::Confirmed), "none"));
    let quarantined = a.quarantined();
    assert_eq!(quarantined.len(), 1);
    assert_eq!((quarantined[0].id, quarantined[0].kind), (denied, QuarantineKind::RejectedByServer));
    assert_eq!(quarantined[0].tag.as_str(), "create_note_v1");
}

/// Fetching, applying and uploading go on with something in quarantine.
#[test]
fn qua_02_work_goes_on_in_both_directions_with_something_in_quarantine() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    let denied = a.run(&create("n", "denied"));
    refuse(&mut a, denied, RejectionKind::Denied);
    b.run(&create("m", "of B"));
    b.sync();
    let later = a.run(&create("o", "of A"));
    a.sync();
    assert_eq!((a.title("m").as_str(), a.fate(later)), ("of B", Some(Fate::Confirmed)));
    world.settle(&mut [&mut a, &mut b]);
    assert_eq!(a.quarantined().len(), 1, "it stays until the app decides");
}

/// An invalid record is taken out alone, too; the rest of its batch goes up in the next. The system before this one rebased
/// and tried all of it again.
#[test]
fn qua_04_an_invalid_record_does_not_keep_its_batch_back() {
    let world = World::new();
    let mut a = world.device("A");
    let before = a.run(&create("n", "before"));
    let invalid = a.run(&create("m", "invalid"));
    let after = a.run(&content("n", "after"));
    refuse(&mut a, invalid, RejectionKind::Constraint);
    a.sync();
    assert_eq!(world.logged(), [before, after]);
    assert_eq!((a.title("m").as_str(), a.content("n").as_str()), ("none", "after"));
}

/// What needs the refused action is replayed without it: it fails and follows, or does what it can.
#[test]
fn qua_08_what_depends_on_a_refused_action_is_replayed_without_it() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    a.sync();
    let refused = a.run(&title("n", "free"));
    let needs_it = a.run(&claim("n", "A"));
    let does_not = a.run(&content("n", "of A"));
    refuse(&mut a, refused, RejectionKind::Denied);
    assert_eq!(a.fate(needs_it), Some(Fate::Rejected { reason: "it is taken".into() }));
    assert_eq!((a.title("n").as_str(), a.content("n").as_str()), ("One", "of A"));
    let kinds: Vec<_> = a.quarantined().into_iter().map(|quarantined| (quarantined.id, quarantined.kind)).collect();
    let expected = [(refused, QuarantineKind::RejectedByServer), (needs_it, QuarantineKind::RejectedOnReplay)];
    assert_eq!(kinds, expected, "oldest first, each with its reason");
    a.sync();
    assert_eq!(a.fate(does_not), Some(Fate::Confirmed));
}

/// A token that the server no longer takes quarantines nothing: the same work goes up with the next one.
#[test]
fn qua_09_an_expired_token_never_quarantines() {
    let world = World::new();
    let mut a = world.device("A");
    let id = a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    let expired = Outcome::Unauthenticated { reason: "expired".into() };
    assert!(matches!(a.conclude(&sent, &expired), Ok(Concluded::Later)));
    assert_eq!((a.quarantined().len(), a.pending().len(), a.title("n").as_str()), (0, 1, "One"));
    a.sync();
    assert_eq!(a.fate(id), Some(Fate::Confirmed));
}

/// Neither does trouble on the server's side, or a batch that it cannot read as a whole.
#[test]
fn qua_trouble_on_the_servers_side_never_quarantines() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    let sent = a.batch().expect("pending");
    assert!(matches!(a.conclude(&sent, &Outcome::Retry { after_ms: 10 }), Ok(Concluded::Later)));
    a.network.set_online(false);
    assert!(matches!(a.try_sync(), Err(Trouble::Network(_))));
    a.network.set_online(true);
    assert_eq!((a.quarantined().len(), a.pending().len()), (0, 1));
    a.sync();
    assert_eq!(world.server.log().len(), 1);
}

/// What is in quarantine, and why, is durable.
#[test]
fn qua_quarantine_outlives_a_restart() {
    let world = World::new();
    let mut a = world.device("A");
    let id = a.run(&create("n", "One"));
    refuse(&mut a, id, RejectionKind::Denied);
    a.restart(&[]);
    assert_eq!(a.quarantined().into_iter().map(|quarantined| quarantined.id).collect::<Vec<_>>(), [id]);
    assert_eq!(a.fate(id), Some(Fate::Rejected { reason: "the server says no".into() }));
}

/// The app looks into the quarantine, tries an action again as a new one, exports, and discards.
#[test]
fn qua_an_app_can_inspect_retry_export_and_discard() {
    let world = World::new();
    let mut a = world.device("A");
    let [first, second] = [a.run(&create("n", "One")), a.run(&create("m", "Two"))];
    refuse(&mut a, first, RejectionKind::Denied);
    refuse(&mut a, second, RejectionKind::Denied);
    let found = a.engine().inspect(first).expect("reads").expect("is there");
    assert_eq!((found.quarantined.id, found.patches.len()), (first, 1));
    assert_eq!(a.engine().export_quarantine().expect("reads").len(), 2);
    let again = ActionId::from_uuid(uuid::Uuid::from_u128(0xa9a1));
    a.engine().retry(first, ExecuteInput::new(again, world.now_ms())).expect("works now");
    assert!(a.engine().discard(second).expect("writes"));
    assert!(a.quarantined().is_empty());
    a.sync();
    assert_eq!((a.fate(again), a.title("n").as_str(), a.title("m").as_str()), (Some(Fate::Confirmed), "One", "none"));
}

/// A column or table that the server does not have yet: the action waits, with what touches its rows; the rest goes up, and
/// so does it after the next session. Nothing is quarantined.
#[test]
fn u17_what_the_servers_schema_cannot_take_yet_waits_for_the_next_session() {
    let world = World::new();
    let mut a = world.device("A");
    let [early, touches_it, other] =
        [a.run(&create("n", "One")), a.run(&title("n", "Two")), a.run(&create("m", "One"))];
    refuse(&mut a, early, RejectionKind::UnknownColumn);
    let sent = a.batch().expect("the rest");
    assert_eq!(sent.batch.records.iter().map(|record| record.id).collect::<Vec<_>>(), [other]);
    let outcome = a.send(&sent).expect("answers");
    a.conclude(&sent, &outcome).expect("concludes");
    assert_eq!((a.batch(), a.quarantined().len()), (None, 0));
    a.sync();
    assert_eq!(world.logged(), [other, early, touches_it]);
}
