//! Undo, to any point: taking positions back from the end gives, each time, the rows that were there before.

use synchrotron_core::store::{RowStore, Store, StoreError};

use super::oracle::difference;
use super::promises::history;
use crate::failure::{Failure, FailureKind};
use crate::run::{Device, ServerLog};

/// Undoes a stopped device's history in a transaction that is never committed.
pub(crate) fn undo(device: &Device, log: &ServerLog) -> Result<(), Failure> {
    let state = device.home.state();
    let history = history(device, &state, log);
    let fail = |what: String| Failure::new(FailureKind::Undo, device.number, what);
    let broken = |error: StoreError| fail(error.to_string());
    let mut store = device.home.store();
    let txn = store.begin().map_err(broken)?;
    let undoable = history.positions().into_iter().rev().take_while(|position| Some(*position) > state.floor);
    for position in undoable {
        if RowStore::has_effects(&*txn, position.action_id).map_err(broken)? {
            RowStore::rewind(&*txn, position.action_id).map_err(broken)?;
        }
        let rows = device.home.rows_by(&|sql| txn.as_sql().query(sql, &[]).expect("a query of a tracked table"));
        if let Some(what) = difference(&rows, &history.rows_before(position)) {
            return Err(fail(format!("before {}: {what}", position.action_id)));
        }
    }
    Ok(())
}
