//! Rules of patches: rows are set as a patch says, and that is captured as effects of its action.

use super::StoreFixture;
use super::subject::{act, action, audience, columns, patch, row, rows, step, thing};
use crate::model::{Effect, Value};

/// INSERT sets the whole row, whether it is there or not; UPDATE its columns; DELETE removes it; NOTHING does nothing.
/// What was done is captured, with the rows as they were as undo.
pub fn a_patch_sets_rows_and_is_captured(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO things (id, label, number, audience_key) VALUES ('t', 'old', 1, 'p')"]);
        let before = rows(txn);
        let effects = [
            patch(0, "things", "t", Effect::Insert(thing("whole"))),
            patch(1, "things", "u", Effect::Insert(thing("new"))),
            patch(2, "things", "u", Effect::Update(columns([("flag", true.into()), ("label", Value::Null)]))),
            patch(3, "things", "u", Effect::Nothing),
        ];
        txn.apply_patch(action(2), &effects).expect("applies");
        let mut u = thing("");
        u.extend(columns([("flag", true.into()), ("label", Value::Null)]));
        let expected = [(row("things", "t"), thing("whole")), (row("things", "u"), u)];
        assert_eq!(rows(txn), expected.map(|(key, columns)| (key, (audience("p"), columns))).into());
        let captured = txn.captured(action(2)).expect("reads");
        let set = Effect::Update(columns([("label", "whole".into()), ("number", Value::Null)]));
        assert_eq!(captured[0].effect, set, "an INSERT of a row that is there changed two columns");
        assert_eq!(captured.len(), 3);
        txn.apply_patch(action(3), &[patch(0, "things", "u", Effect::Delete)]).expect("applies");
        assert_eq!(rows(txn).len(), 1);
        txn.rewind(action(2)).expect("rewinds");
        assert_eq!(rows(txn), before);
    });
}

/// UPDATE and DELETE of an absent row do nothing, and neither does a patch without effects.
pub fn absent_rows_are_not_updated(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        let effects = [
            patch(0, "things", "t", Effect::Update(columns([("number", 1.into())]))),
            patch(1, "things", "t", Effect::Delete),
            patch(2, "things", "t", Effect::Nothing),
            patch(3, "things", "t", Effect::Update(columns([]))),
        ];
        txn.apply_patch(action(1), &effects).expect("applies");
        txn.apply_patch(action(2), &[]).expect("applies");
        assert_eq!(rows(txn), super::subject::Rows::new());
        assert!(!txn.has_effects(action(1)).expect("reads"));
    });
}

/// A child may be set before its parent within one transaction.
pub fn a_patch_may_break_a_foreign_key_on_its_way(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let part = columns([("name", "wheel".into()), ("thing", "t".into())]);
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[patch(0, "parts", "a", Effect::Insert(part))]).expect("the child comes first");
        txn.apply_patch(action(2), &[patch(0, "things", "t", Effect::Insert(thing("late")))]).expect("applies");
    });
    assert_eq!(step(&mut store, rows).len(), 2);
}

/// Columns and tables that this database does not have are left out of a patch, and the store says so beforehand.
pub fn a_patch_that_does_not_fit_is_applied_as_far_as_it_does(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'p')"]);
        let partly = columns([("label", "two".into()), ("wings", 2.into())]);
        let unknown = patch(0, "things", "t", Effect::Update(partly));
        let untracked = patch(1, "planets", "t", Effect::Delete);
        assert!(!txn.fits(std::slice::from_ref(&unknown)) && !txn.fits(std::slice::from_ref(&untracked)));
        assert_eq!(txn.apply_patch(action(2), &[unknown, untracked]), Ok(Vec::new()));
        let captured = txn.captured(action(2)).expect("reads");
        assert_eq!(captured, [patch(0, "things", "t", Effect::Update(columns([("label", "two".into())])))]);
        assert!(txn.fits(&captured));
    });
}
