//! One row's state from its effects in the log: the fold of effective patches in replay order.
//!
//! Place in the journey: after a late effect or a correction was appended. Pure: the same effects give the same row on
//! every device and here ([`synchrotron_core::patch`]).

use std::collections::BTreeSet;

use synchrotron_core::model::{ActionId, AudienceKey, Columns, Effect, Patch, ReplayKey, ServerIngestId};
use synchrotron_core::patch::{Amendment, effective_patch, fold};

/// One logged effect on the row.
#[derive(Debug, Clone)]
pub(crate) struct Logged {
    /// The record that it belongs to.
    pub(crate) record: ActionId,
    /// Where it takes effect.
    pub(crate) position: ReplayKey,
    /// When it arrived.
    pub(crate) server_ingest_id: ServerIngestId,
    /// What it does.
    pub(crate) patch: Patch,
}

impl Logged {
    /// Whether it is part of a correction: those sit at another record's position.
    pub(crate) fn is_amendment(&self) -> bool {
        self.record != self.position.action_id
    }
}

/// A row that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folded {
    /// Whose it is.
    pub(crate) audience_key: AudienceKey,
    /// The columns that the log knows.
    pub(crate) columns: Columns,
}

/// A row's history, folded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fold {
    /// The row, if it is there.
    pub(crate) row: Option<Folded>,
    /// What it was before it was removed last, if it was.
    pub(crate) removed: Option<Folded>,
    /// Where an effect names another audience than the row has, or, if it is gone, had. Devices of one audience do not
    /// see effects that name another, so a record that adds to these is refused.
    pub(crate) mislabelled: BTreeSet<ReplayKey>,
}

/// Folds effects, ordered by position, onto `base`.
pub(crate) fn fold_row(base: Option<Folded>, logged: &[Logged]) -> Fold {
    let mut owner = base.as_ref().map(|row| row.audience_key.clone());
    let mut columns = base.map(|row| row.columns);
    let mut removed = None;
    let mut mislabelled = BTreeSet::new();
    for at_once in logged.chunk_by(|a, b| a.position == b.position) {
        for patch in effective_at(at_once) {
            let creates = columns.is_none() && matches!(patch.effect, Effect::Insert(_));
            if !creates && owner.as_ref().is_some_and(|owner| *owner != patch.audience_key) {
                mislabelled.insert(at_once[0].position);
            }
            if patch.effect == Effect::Delete {
                removed = present(&owner, &columns).or(removed);
            }
            columns = fold(columns, &patch.effect);
            if matches!(patch.effect, Effect::Insert(_)) {
                owner = Some(patch.audience_key);
            }
        }
    }
    Fold { row: present(&owner, &columns), removed, mislabelled }
}

fn present(owner: &Option<AudienceKey>, columns: &Option<Columns>) -> Option<Folded> {
    let (audience_key, columns) = owner.as_ref().zip(columns.as_ref())?;
    Some(Folded { audience_key: audience_key.clone(), columns: columns.clone() })
}

/// What one action comes to do to the row, all amendments considered.
fn effective_at(at_once: &[Logged]) -> Vec<Patch> {
    let own = |logged: &&Logged| !logged.is_amendment();
    let mut shared: Vec<Patch> = at_once.iter().filter(own).map(|logged| logged.patch.clone()).collect();
    shared.sort_by_key(|patch| patch.sequence);
    let amendments: Vec<Amendment> = at_once
        .iter()
        .filter(|logged| logged.is_amendment())
        .map(|logged| Amendment { patch: logged.patch.clone(), server_ingest_id: Some(logged.server_ingest_id) })
        .collect();
    effective_patch(&shared, &amendments)
}

/// Whether the effective effects at the first position say what the whole row is, so that nothing beneath matters.
pub(crate) fn begins_whole(logged: &[Logged]) -> bool {
    logged.chunk_by(|a, b| a.position == b.position).next().is_some_and(|first| {
        effective_at(first).iter().any(|patch| matches!(patch.effect, Effect::Insert(_) | Effect::Delete))
    })
}

/// Whether any effect, amended away or not, says what the whole row is. If none ever did, the row was there before its
/// history began.
pub(crate) fn ever_whole(logged: &[Logged]) -> bool {
    logged.iter().any(|logged| matches!(logged.patch.effect, Effect::Insert(_) | Effect::Delete))
}

/// Every column that any effect, amended away or not, has set.
pub(crate) fn columns_named<'l>(logged: impl IntoIterator<Item = &'l Logged>) -> BTreeSet<&'l str> {
    logged
        .into_iter()
        .filter_map(|logged| logged.patch.effect.columns())
        .flat_map(|c| c.keys().map(String::as_str))
        .collect()
}
