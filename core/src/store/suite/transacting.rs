//! Rules of transactions: savepoints nest, a dropped transaction never was, a committed one stays.

use super::StoreFixture;
use super::subject::{Rows, act, action, audience, columns, patch, pending, put, rows, step, thing, try_act, walk};
use crate::model::{Cursor, Cursors, Effect, Epoch, Hlc};
use crate::store::{AudienceState, Fate, QuarantineKind, Store, StoreTxn};

const INSERT: &str = "INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'p')";

/// Rolling back a savepoint takes rows and captured effects since then, released inner savepoints included.
pub fn savepoints_nest_and_take_captured_effects_along(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &[INSERT]);
        let (rows_before, captured_before) = (rows(txn), txn.captured(action(1)).expect("reads"));
        txn.savepoint().expect("outer");
        act(txn, action(2), &["UPDATE things SET number = 2"]);
        let after_second = rows(txn);
        txn.savepoint().expect("inner");
        act(txn, action(3), &["DELETE FROM things"]);
        txn.rollback_to_savepoint().expect("takes back the inner");
        assert_eq!(rows(txn), after_second);
        assert!(!txn.has_effects(action(3)).expect("reads"));
        assert!(txn.has_effects(action(2)).expect("reads"));
        txn.savepoint().expect("inner");
        txn.rewind(action(1)).expect("rewinds");
        assert_eq!(rows(txn), Rows::new());
        txn.release_savepoint().expect("keeps the inner");
        txn.rollback_to_savepoint().expect("takes back the outer");
        assert_eq!(rows(txn), rows_before);
        assert_eq!(txn.captured(action(1)).expect("reads"), captured_before);
        assert!(!txn.has_effects(action(2)).expect("reads"));
        txn.savepoint().expect("a third");
        act(txn, action(4), &["UPDATE things SET number = 4"]);
        txn.release_savepoint().expect("keeps it");
        assert!(txn.has_effects(action(4)).expect("reads"));
    });
    let number = step(&mut store, |txn| rows(txn).pop_first().expect("one row").1.1["number"].clone());
    assert_eq!(number, 4.into());
}

/// A savepoint holds all of the store, not only rows; a failed action in it leaves the rest as it was.
pub fn a_savepoint_takes_log_and_status_along(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        put(txn, &[pending(1, 10, vec![])]);
        txn.savepoint().expect("begins");
        put(txn, &[pending(2, 20, vec![])]);
        txn.put_clock(Hlc::at_millis(20)).expect("is put");
        txn.put_fate(action(2), Hlc::at_millis(20), &Fate::Confirmed).expect("is put");
        try_act(txn, action(2), &[(INSERT, &[]), ("INSERT INTO nowhere VALUES (1)", &[])]).expect_err("no such table");
        txn.rollback_to_savepoint().expect("takes back");
        assert_eq!(walk(txn), [action(1)]);
        assert_eq!((txn.clock().expect("reads"), txn.fate(action(2)).expect("reads")), (Hlc::ZERO, None));
        assert_eq!(rows(txn), Rows::new());
    });
}

/// Something in every part of the store.
fn write_everything(txn: &dyn StoreTxn) {
    txn.put_session(&super::user(), Epoch::from_uuid(uuid::Uuid::from_u128(0xe))).expect("is put");
    put(txn, &[pending(1, 10, vec![patch(0, "things", "t", Effect::Insert(thing("one")))]), pending(2, 20, vec![])]);
    act(txn, action(1), &[INSERT]);
    txn.apply_patch(action(2), &[patch(0, "things", "t", Effect::Update(columns([("number", 2.into())])))])
        .expect("applies");
    txn.put_clock(Hlc::at_millis(20)).expect("is put");
    txn.put_audience(&audience("p"), &AudienceState::default()).expect("is put");
    txn.put_cursor(&audience("p"), Cursor::new(7)).expect("is put");
    txn.put_fate(action(9), Hlc::at_millis(9), &Fate::Confirmed).expect("is put");
    txn.quarantine(action(1), QuarantineKind::RejectedByServer, "no").expect("is put");
    txn.refuse_correction(action(8)).expect("is put");
    txn.remember_newest(pending(1, 10, vec![]).record.position(), 5).expect("is put");
}

/// Everything that [`write_everything`] may have written, as text.
fn look(txn: &dyn StoreTxn) -> Vec<String> {
    let end = pending(3, 30, vec![]).record.position();
    vec![
        format!("{:?}", rows(txn)),
        format!("{:?}", (txn.epoch(), txn.user_id(), txn.client_id())),
        format!("{:?}", (txn.clock(), txn.cursors())),
        format!("{:?}", (txn.record(action(1)), txn.record(action(2)), txn.unsent(None, 10), txn.pending_count())),
        format!("{:?}", (txn.captured(action(1)), txn.captured(action(2)))),
        format!("{:?}", (txn.fate(action(9)), txn.quarantined(), txn.is_refused(action(8)))),
        format!("{:?}", txn.newest_before(end)),
    ]
}

/// A transaction that is dropped leaves no trace, whatever it did, savepoints open or not, an action running or not.
pub fn a_dropped_transaction_leaves_nothing(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let before = step(&mut store, look);
    for round in 0..3 {
        let txn = store.begin().expect("begins");
        write_everything(&*txn);
        if round > 0 {
            txn.savepoint().expect("begins");
        }
        if round > 1 {
            txn.begin_action(action(3)).expect("begins");
        }
        drop(txn);
        assert_eq!(step(&mut store, look), before, "round {round}");
    }
    step(&mut store, |txn| txn.as_sql().execute(INSERT, &[]).expect_err("rows are closed again"));
    step(&mut store, write_everything);
    assert_ne!(step(&mut store, look), before);
}

/// What only reads sees what was committed, and leaves nothing, whatever it did.
pub fn a_reading_transaction_sees_everything_and_leaves_nothing(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, write_everything);
    let before = step(&mut store, look);
    for _again in 0..2 {
        let txn = store.begin_reading().expect("begins");
        assert_eq!(look(&*txn), before);
        act(&*txn, action(3), &["DELETE FROM things"]);
        txn.put_cursor(&audience("p"), Cursor::new(8)).expect("is put");
        assert_ne!(look(&*txn), before);
    }
    assert_eq!(step(&mut store, look), before);
}

/// What was committed is there when the database is opened again, undo included.
pub fn a_reopened_store_has_everything(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, write_everything);
    let before = step(&mut store, look);
    drop(store);
    let mut store = fixture.open();
    assert_eq!(step(&mut store, look), before);
    assert_eq!(step(&mut store, |txn| txn.cursors().expect("reads")), Cursors::from([(audience("p"), Cursor::new(7))]));
    step(&mut store, |txn| {
        txn.rewind(action(1)).expect("rewinds what another process did");
        assert_eq!(rows(txn), Rows::new());
        act(txn, action(1), &[INSERT]);
    });
    assert_eq!(step(&mut store, rows).len(), 1, "capture is installed again");
}
