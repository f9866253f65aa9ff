//! Rules of the log's records: what is put is read back, whole.

use uuid::Uuid;

use super::StoreFixture;
use super::subject::{accepted, action, columns, correction, patch, pending, put, step, thing, walk};
use super::values::awkward;
use crate::model::{ActionId, Effect, Patch, RecordBody};

/// Every column of `things` with its `n`th awkward value.
fn awkward_patches() -> Vec<Patch> {
    let awkward = awkward();
    let longest = awkward.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    (0..longest)
        .map(|n| {
            let columns = awkward
                .iter()
                .map(|(column, values)| ((*column).to_owned(), values[n % values.len()].clone()))
                .collect();
            let sequence = u32::try_from(n).expect("BUG: few values");
            patch(
                sequence,
                "things",
                &format!("t{n}"),
                if n % 2 == 0 { Effect::Insert(columns) } else { Effect::Update(columns) },
            )
        })
        .collect()
}

/// Records come back as they were put: actions and corrections, every kind of value, what is known of them here.
pub fn a_record_is_kept_whole(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let mut partly_visible = accepted(pending(1, 10, awkward_patches()), 3);
    partly_visible.row_count = 4_000_000_000;
    partly_visible.faithful = Some(false);
    let mut executed = pending(2, 20, vec![patch(0, "things", "t", Effect::Delete)]);
    executed.executed = Some(Uuid::from_u128(u128::MAX));
    executed.faithful = Some(true);
    let takes_back =
        vec![patch(0, "things", "t", Effect::Nothing), patch(1, "things", "u", Effect::Update(columns([])))];
    let mut amends = correction(3, 30, partly_visible.record.position());
    amends.row_count = 2;
    amends.rows = takes_back;
    if let RecordBody::Correction { reason, .. } = &mut amends.record.body {
        *reason = Some("the seat is taken".to_owned());
    }
    let all = [partly_visible, executed, amends, pending(4, 40, vec![])];
    step(&mut store, |txn| put(txn, &all));
    drop(store);
    step(&mut fixture.open(), |txn| {
        for record in &all {
            let id = record.record.id;
            assert_eq!(txn.record(id).expect("reads").as_ref(), Some(record));
        }
        assert_eq!(txn.record(action(99)).expect("reads"), None);
        let ids: Vec<ActionId> = (0..250).map(action).collect();
        let known = txn.known(&ids).expect("reads");
        assert!(!known.is_empty());
        assert!(ids.iter().all(|id| known.contains(id) == txn.record(*id).expect("reads").is_some()), "{known:?}");
        assert_eq!(txn.known(&[]).expect("reads"), [].into());
    });
}

/// A record that is put again is the new one: position, number and rows; the old rows are gone.
pub fn a_record_put_again_replaces_the_first(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let row = |sequence| patch(sequence, "things", "t", Effect::Insert(thing("x")));
    let again = accepted(pending(1, 99, vec![row(7)]), 5);
    step(&mut store, |txn| {
        put(txn, &[pending(1, 10, vec![row(0), row(1)]), pending(2, 20, vec![]), again.clone()]);
        assert_eq!(txn.record(action(1)).expect("reads"), Some(again));
        assert_eq!(walk(txn), [action(2), action(1)]);
        assert_eq!(txn.pending_count().expect("reads"), 1);
        txn.remember_faithful(action(2), Some(true)).expect("is put");
        assert_eq!(txn.record(action(2)).expect("reads").and_then(|record| record.faithful), Some(true));
        txn.remember_faithful(action(2), Some(false)).expect("is put");
        assert_eq!(txn.record(action(2)).expect("reads").and_then(|record| record.faithful), Some(false));
        txn.remember_faithful(action(2), None).expect("is put");
        assert_eq!(txn.record(action(2)).expect("reads").and_then(|record| record.faithful), None);
    });
}

/// The patch of a pending action is replaced as a whole, and its count with it.
pub fn a_patch_is_replaced_with_its_count(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let row = |sequence| patch(sequence, "things", "t", Effect::Insert(thing("x")));
    step(&mut store, |txn| {
        put(txn, &[pending(1, 10, vec![row(0), row(1), row(2)]), pending(2, 20, vec![row(0)])]);
        for rows in [vec![row(4)], vec![], vec![row(0), row(1), row(2), row(3)]] {
            txn.put_patch(action(1), &rows).expect("is put");
            assert_eq!(txn.record(action(1)).expect("reads"), Some(pending(1, 10, rows)));
        }
        assert_eq!(txn.record(action(2)).expect("reads"), Some(pending(2, 20, vec![row(0)])), "others keep theirs");
    });
}

/// A record that is removed is gone with its rows, and may come again.
pub fn a_removed_record_leaves_nothing(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let row = |sequence| patch(sequence, "things", "t", Effect::Insert(thing("x")));
    step(&mut store, |txn| {
        put(txn, &[pending(1, 10, vec![row(0), row(1)]), pending(2, 20, vec![row(0)])]);
        txn.remove_record(action(1)).expect("is removed");
        txn.remove_record(action(99)).expect("what is not there stays away");
        assert_eq!(txn.record(action(1)).expect("reads"), None);
        assert_eq!((walk(txn), txn.pending_count().expect("reads")), (vec![action(2)], 1));
        put(txn, &[pending(1, 10, vec![row(5)])]);
        assert_eq!(txn.record(action(1)).expect("reads"), Some(pending(1, 10, vec![row(5)])));
    });
}
