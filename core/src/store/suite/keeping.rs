//! Rules of status: clock and cursors never go back, fates and quarantine are kept.

use uuid::Uuid;

use super::StoreFixture;
use super::subject::{action, audience, patch, pending, put, step};
use crate::model::{ClientId, Cursor, Cursors, Effect, Epoch, Hlc};
use crate::store::{AudienceState, Fate, QuarantineKind, StoreTxn};

/// Device and user are those that the database was made for; a session adds the server's history.
pub fn a_session_is_kept(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let who = |txn: &dyn StoreTxn| (txn.client_id().expect("reads"), txn.user_id().expect("reads"));
    step(&mut store, |txn| {
        assert_eq!(who(txn), (super::client(), Some(super::user())));
        assert_eq!(txn.epoch().expect("reads"), None, "no session yet");
    });
    for epoch in [1, 2].map(|n| Epoch::from_uuid(Uuid::from_u128(n))) {
        step(&mut store, |txn| txn.put_session(&super::user(), epoch).expect("is put"));
        step(&mut store, |txn| assert_eq!(txn.epoch().expect("reads"), Some(epoch)));
    }
    step(&mut store, |txn| assert_eq!(who(txn), (super::client(), Some(super::user()))));
}

/// The clock starts at zero and only grows, to its last value.
pub fn a_clock_never_goes_back(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let clocks = [(0, 0), (5, 5), (3, 5), (i64::MAX, i64::MAX), (0, i64::MAX)];
    for (put, expected) in clocks.map(|(put, expected)| (Hlc::from_packed(put), Hlc::from_packed(expected))) {
        step(&mut store, |txn| txn.put_clock(put).expect("is put"));
        assert_eq!(step(&mut store, |txn| txn.clock().expect("reads")), expected);
    }
}

/// Audiences are added once, under any key that is one; a cursor only grows, each on its own.
pub fn a_cursor_never_goes_back(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let (plain, odd) = (audience("p"), audience("a.b * > \n 🎭 '\"%_"));
    let steps = [
        (&plain, 0, 0, None),
        (&odd, 7, 0, Some(7)),
        (&plain, 5, 5, Some(7)),
        (&odd, 6, 5, Some(7)),
        (&plain, 4, 5, Some(7)),
    ];
    assert_eq!(step(&mut store, |txn| txn.cursors().expect("reads")), Cursors::new());
    for (key, put, of_plain, of_odd) in steps {
        step(&mut store, |txn| {
            if !txn.cursors().expect("reads").contains_key(key) {
                txn.put_audience(key, &AudienceState::default()).expect("is added");
            }
            txn.put_cursor(key, Cursor::new(put)).expect("is put");
        });
        let mut expected = Cursors::from([(plain.clone(), Cursor::new(of_plain))]);
        expected.extend(of_odd.map(|cursor| (odd.clone(), Cursor::new(cursor))));
        assert_eq!(step(&mut store, |txn| txn.cursors().expect("reads")), expected);
    }
}

/// A fate is unknown until it is decided, and the newest decision counts.
pub fn a_fate_is_kept_and_may_change(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    assert_eq!(step(&mut store, |txn| txn.fate(action(1)).expect("reads")), None);
    let reason = || "it's \"taken\" 🎭".to_owned();
    for fate in [
        Fate::Confirmed,
        Fate::Changed { reason: None },
        Fate::Changed { reason: Some(reason()) },
        Fate::Rejected { reason: reason() },
        Fate::Rejected { reason: String::new() },
        Fate::Confirmed,
    ] {
        step(&mut store, |txn| txn.put_fate(action(1), Hlc::at_millis(1), &fate).expect("is put"));
        assert_eq!(step(&mut store, |txn| txn.fate(action(1)).expect("reads")), Some(fate));
    }
    assert_eq!(step(&mut store, |txn| txn.fate(action(2)).expect("reads")), None);
}

/// A quarantined action is kept with its reason when its record goes; oldest first, each once.
pub fn a_quarantined_action_is_kept(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        put(txn, &[pending(1, 20, vec![]), pending(2, 10, vec![])]);
        txn.quarantine(action(1), QuarantineKind::RejectedByServer, "first").expect("is put");
        txn.quarantine(action(1), QuarantineKind::RejectedOnReplay, "again").expect("does nothing");
        txn.quarantine(action(2), QuarantineKind::RejectedOnReplay, "no such seat").expect("is put");
        txn.remove_record(action(1)).expect("is removed");
        txn.remove_record(action(2)).expect("is removed");
    });
    let kept = step(&mut store, |txn| txn.quarantined().expect("reads"));
    let facts: Vec<_> = kept.iter().map(|one| (one.id, one.tag.as_str(), one.kind, one.reason.as_str())).collect();
    let expected = [
        (action(2), "suite_v1", QuarantineKind::RejectedOnReplay, "no such seat"),
        (action(1), "suite_v1", QuarantineKind::RejectedByServer, "first"),
    ];
    assert_eq!(facts, expected);
}

/// Fates are listed by the age of their actions, page by page, and pruned by it.
pub fn fates_are_listed_and_pruned_by_age(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        for (n, at_ms) in [(3, 10), (1, 30), (2, 10), (4, 20)] {
            txn.put_fate(action(n), Hlc::at_millis(at_ms), &Fate::Confirmed).expect("is put");
        }
        let listed = |after, limit| -> Vec<_> {
            txn.fates(after, limit).expect("reads").into_iter().map(|fated| fated.action_id).collect()
        };
        assert_eq!(listed(None, 10), [2, 3, 4, 1].map(action));
        assert_eq!(listed(None, 2), [2, 3].map(action));
        assert_eq!(listed(Some((Hlc::at_millis(10), action(2))), 2), [3, 4].map(action), "the next page");
        assert_eq!(txn.prune_fates(Hlc::at_millis(20)).expect("prunes"), 2);
        assert_eq!(listed(None, 10), [4, 1].map(action), "before, not at");
        assert_eq!(txn.fate(action(2)).expect("reads"), None);
    });
}

/// A quarantined action can be looked at whole, and is gone when it is discarded.
pub fn a_quarantined_action_is_inspected_and_discarded(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let patches = vec![patch(0, "things", "t", Effect::Delete)];
    step(&mut store, |txn| {
        put(txn, &[pending(1, 20, patches.clone())]);
        assert_eq!(txn.inspect_quarantined(action(1)).expect("reads"), None);
        txn.quarantine(action(1), QuarantineKind::Dropped, "dropped").expect("is put");
        txn.remove_record(action(1)).expect("is removed");
    });
    step(&mut store, |txn| {
        let whole = txn.inspect_quarantined(action(1)).expect("reads").expect("is there");
        assert_eq!((whole.clock, whole.patches), (Hlc::at_millis(20), patches));
        assert_eq!((whole.args.as_bytes(), whole.quarantined.kind), (&[0x80][..], QuarantineKind::Dropped));
        assert_eq!(txn.quarantined_count().expect("reads"), 1);
        assert!(txn.discard_quarantined(action(1)).expect("discards"));
        assert!(!txn.discard_quarantined(action(1)).expect("again"));
        assert_eq!((txn.quarantined_count().expect("reads"), txn.quarantined().expect("reads")), (0, vec![]));
    });
}

/// The device's id, its clock's offset and the count of rewrites are kept; the clock may be reset on purpose.
pub fn a_device_keeps_what_it_knows_of_itself(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let other = ClientId::from_uuid(Uuid::from_u128(0xfeed));
    let (generation, offset) =
        step(&mut store, |txn| (txn.generation().expect("reads"), txn.clock_offset_ms().expect("reads")));
    assert_eq!(offset, 0);
    step(&mut store, |txn| {
        txn.put_client_id(other).expect("is put");
        txn.put_clock_offset_ms(-86_400_000).expect("is put");
        txn.next_generation().expect("counts");
        txn.put_clock(Hlc::at_millis(50)).expect("is put");
        txn.reset_clock(Hlc::at_millis(10)).expect("is reset");
    });
    step(&mut store, |txn| {
        assert_eq!(txn.client_id().expect("reads"), other);
        assert_eq!(txn.clock_offset_ms().expect("reads"), -86_400_000);
        assert!(txn.generation().expect("reads") > generation);
        assert_eq!(txn.clock().expect("reads"), Hlc::at_millis(10));
    });
    drop(store);
    let id = step(&mut fixture.open(), |txn| txn.client_id().expect("reads"));
    assert_eq!(id, other, "the id that a new database would get is not for an old one");
}

/// A correction that the server will never take is remembered as such.
pub fn a_refused_correction_is_remembered(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        txn.refuse_correction(action(1)).expect("is put");
        txn.refuse_correction(action(1)).expect("again");
    });
    let refused = step(&mut store, |txn| [1, 2].map(|n| txn.is_refused(action(n)).expect("reads")));
    assert_eq!(refused, [true, false]);
}
