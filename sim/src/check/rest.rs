//! What holds when everything is mended and nothing moves any more.

use synchrotron_core::model::Patch;
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::patch::net_effects;
use synchrotron_core::store::Fate;

use super::oracle::{History, difference};
use super::{AtRest, Fates};
use crate::failure::{Failure, FailureKind};
use crate::fleet::Fleet;
use crate::rows::Rows;
use crate::run::{Device, Seen, ServerLog};

/// The server's rows are the fold of its log.
pub(crate) fn server(server: &MemoryServer, log: &ServerLog) -> Result<Rows, Failure> {
    let mut history = History::default();
    log.records.iter().for_each(|logged| history.add(logged, |_| true));
    let truth = history.rows();
    let tables: std::collections::BTreeSet<_> = truth.0.keys().map(|key| key.table.clone()).collect();
    for table in tables {
        let expected = Rows(truth.0.iter().filter(|(key, _)| key.table == table).map(cloned).collect());
        let held = server.rows(&table).into_iter();
        let found = Rows(
            held.map(|(row_id, row)| (synchrotron_core::model::RowKey { table: table.clone(), row_id }, row)).collect(),
        );
        if let Some(what) = difference(&found, &expected) {
            return Err(Failure::new(FailureKind::Rows, None, format!("on the server: {what}")));
        }
    }
    Ok(truth)
}

fn cloned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

/// Promise 2, nothing left to do, and every fate true.
pub(crate) fn at_rest(
    device: &Device,
    server: &MemoryServer,
    log: &ServerLog,
    fates: &Fates,
    seen: Seen,
) -> Result<(), Failure> {
    let visible = Rows(server.rows_visible_to(&device.user));
    if let Some(what) = difference(&device.home.rows(), &visible) {
        return Err(Failure::new(FailureKind::Rows, device.number, what));
    }
    let state = device.home.state();
    if let Some(unsent) = state.records.values().find(|record| record.number.is_none()) {
        let what = format!("{} is still not uploaded", unsent.id);
        return Err(Failure::new(FailureKind::FixedPoint, device.number, what));
    }
    // What the user does not see of an action does not change its fate here.
    let mut history = History::default();
    let seen_here = |row: &Patch| state.cursors.contains_key(&row.audience_key);
    log.records.iter().for_each(|logged| history.add(logged, seen_here));
    for (id, fate) in fates {
        let quarantined = state.quarantined.contains_key(id);
        let logged = log.records.iter().find(|logged| logged.record.id == *id);
        let expected = match logged {
            // Where an answer was lost and the audience too, nobody can tell the author any more.
            Some(logged) if quarantined && !seen.resynced && logged.rows.iter().all(seen_here) => {
                let what = format!("{id} is accepted, and in quarantine too");
                return Err(Failure::new(FailureKind::Fate, device.number, what));
            }
            // A snapshot does not tell what each action did, and a user who left an audience does not see it.
            Some(_) if quarantined || state.floor.is_some() || seen.revoked => "some",
            Some(logged) => {
                let executed = &device.executed[id];
                let same = net_effects(executed) == net_effects(history.effective(logged.record.position()));
                if same { "Confirmed" } else { "Changed" }
            }
            None if quarantined => "Rejected",
            None => "some",
        };
        let found = match fate {
            None => "none",
            Some(Fate::Confirmed) => "Confirmed",
            Some(Fate::Changed { .. }) => "Changed",
            Some(Fate::Rejected { .. }) => "Rejected",
        };
        if found != expected && (fate.is_none() || expected != "some") {
            let what = format!("the fate of {id} is {found}, it should be {expected}");
            return Err(Failure::new(FailureKind::Fate, device.number, what));
        }
    }
    Ok(())
}

/// The app's rules on rows.
pub(crate) fn rules(fleet: &Fleet, device: Option<usize>, rows: &Rows) -> Result<(), Failure> {
    for rule in &fleet.rules {
        (rule.holds)(rows).map_err(|why| Failure::new(FailureKind::Rule, device, format!("{}: {why}", rule.name)))?;
    }
    Ok(())
}

/// The app's rules on the whole.
pub(crate) fn rest_rules(fleet: &Fleet, rest: &AtRest<'_>) -> Result<(), Failure> {
    for rule in &fleet.rest_rules {
        (rule.holds)(rest).map_err(|why| Failure::new(FailureKind::Rule, None, format!("{}: {why}", rule.name)))?;
    }
    Ok(())
}
