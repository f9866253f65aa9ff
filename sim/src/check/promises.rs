//! What holds after every step, on the device that it happened on.

use std::collections::BTreeSet;

use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryServer;

use super::oracle::{History, difference};
use crate::failure::{Failure, FailureKind};
use crate::rows::Rows;
use crate::run::{Device, LocalState, ServerLog};

/// Holds a device to what is promised at every moment; returns the rows that it shows.
pub(crate) fn device(device: &Device, server: &MemoryServer, log: &ServerLog) -> Result<Rows, Failure> {
    let state = device.home.state();
    let rows = device.home.rows();
    nothing_is_lost(device, &state, log)?;
    no_leak(device, &state, &rows)?;
    no_disk_decides(device, &state)?;
    if state.epoch.is_some_and(|epoch| epoch != *server.epoch().as_uuid()) {
        // What it has is of another history, and stands until the next session.
        return Ok(rows);
    }
    log_is_covered(device, &state, log)?;
    let expected = history(device, &state, log).rows();
    match difference(&fresh(&rows, &state), &fresh(&expected, &state)) {
        None => Ok(rows),
        Some(what) => Err(Failure::new(FailureKind::Rows, device.number, what)),
    }
}

/// The rows that do not wait for a snapshot.
fn fresh(rows: &Rows, state: &LocalState) -> Rows {
    let fresh = rows.0.iter().filter(|(_, row)| !state.stale.contains(&row.audience_key));
    Rows(fresh.map(|(key, row)| (key.clone(), row.clone())).collect())
}

/// What the device has: all that its cursors cover, its own accepted records, and what it has not uploaded.
pub(crate) fn history<'a>(device: &Device, state: &'a LocalState, log: &'a ServerLog) -> History<'a> {
    let mut history = History::default();
    for logged in &log.records {
        let Some(number) = logged.record.server_ingest_id else { continue };
        // An own record is here before the cursor says so, unless a snapshot has taken it away again.
        let own = state.records.get(&logged.record.id).filter(|local| local.number.is_some());
        let own = own.filter(|local| device.home.client_ids.contains(&local.author));
        history.add(logged, |row| {
            let here = own.is_some_and(|local| local.rows.iter().any(|have| have.sequence == row.sequence));
            state.cursors.get(&row.audience_key).is_some_and(|cursor| here || cursor.covers(number))
        });
    }
    for unsent in state.records.values().filter(|record| record.number.is_none()) {
        history.add_unsent(unsent);
    }
    history
}

/// Promise 1.
fn nothing_is_lost(device: &Device, state: &LocalState, log: &ServerLog) -> Result<(), Failure> {
    for id in device.executed.keys() {
        let pending = state.records.get(id).is_some_and(|record| record.number.is_none());
        let quarantined = state.quarantined.get(id).is_some_and(|reason| !reason.is_empty());
        if !log.accepted.contains(id) && !pending && !quarantined {
            let what = format!("action {id} is neither in the server's log, nor pending, nor in quarantine");
            return Err(Failure::new(FailureKind::Lost, device.number, what));
        }
    }
    Ok(())
}

/// Records of others came with cursors that cover them; accepted ones are the server's.
fn log_is_covered(device: &Device, state: &LocalState, log: &ServerLog) -> Result<(), Failure> {
    let fail = |what: String| Err(Failure::new(FailureKind::Log, device.number, what));
    for local in state.records.values() {
        let Some(number) = local.number else { continue };
        // After another history began, the old one stays until the snapshot comes.
        if !local.rows.is_empty() && local.rows.iter().all(|row| state.stale.contains(&row.audience_key)) {
            continue;
        }
        let logged = log.records.iter().find(|logged| logged.record.id == local.id);
        let Some(logged) = logged.filter(|logged| logged.record.server_ingest_id.map(|id| id.get()) == Some(number))
        else {
            return fail(format!("record {} has number {number}, the server's log has not", local.id));
        };
        let covered = logged
            .rows
            .iter()
            // What waits for a snapshot begins anew; what is here of it goes when that comes.
            .any(|row| {
                let covered = state.cursors.get(&row.audience_key).is_some_and(|cursor| cursor.get() >= number);
                covered || state.stale.contains(&row.audience_key)
            });
        if !covered && !device.home.client_ids.contains(&local.author) {
            return fail(format!("record {} with number {number} is here, no cursor covers it", local.id));
        }
    }
    Ok(())
}

/// Promise 3.
fn no_leak(device: &Device, state: &LocalState, rows: &Rows) -> Result<(), Failure> {
    let Some(told) = &device.told else { return Ok(()) };
    let check = |what: &str, audience: &AudienceKey| {
        if told.contains(audience) {
            return Ok(());
        }
        Err(Failure::new(FailureKind::Leak, device.number, format!("{what} of {audience:?} is here")))
    };
    let shown: BTreeSet<_> = rows.0.values().map(|row| &row.audience_key).collect();
    shown.into_iter().try_for_each(|audience| check("a row", audience))?;
    state.cursors.keys().try_for_each(|audience| check("a cursor", audience))?;
    state.undo_audiences.iter().try_for_each(|audience| check("undo", audience))?;
    let logged = state.records.values().flat_map(|record| &record.rows);
    logged.into_iter().try_for_each(|row| check("a logged row", &row.audience_key))
}

/// A failing disk is no rule of the app: it never decides about an action.
fn no_disk_decides(device: &Device, state: &LocalState) -> Result<(), Failure> {
    let corrections = state.records.values().filter_map(|record| record.reason.as_ref());
    match state.quarantined.values().chain(corrections).find(|reason| reason.contains("injected")) {
        None => Ok(()),
        Some(reason) => {
            Err(Failure::new(FailureKind::Alarm, device.number, format!("an action was judged by its disk: {reason}")))
        }
    }
}
