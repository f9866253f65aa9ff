//! Integrate: rewinds to the smallest new position, goes forward in the one order, advances the cursors.
//!
//! Place in the journey: the last hop of a remote action, and the hop where a local one may change. All commits or none.
//!
//! # Invariants
//! - I-05: positions are settled in strictly increasing replay-key order, from the start position to the end.
//! - I-06: what lies before the start position is not touched.
//! - I-07: if nothing is later than what arrives, nothing is rewound.

use std::collections::{BTreeMap, BTreeSet};

use super::replay::Replay;
use super::traces::Traces;
use super::{Committed, Engine, EngineError};
use crate::action::{Registry, Tables};
use crate::model::{ActionId, AudienceKey, Cursors, Patch, RecordBody, ReplayKey, ServerIngestId};
use crate::store::{AudienceState, LogStore, QuarantineKind, Store, StoreError, StoreTxn, StoredRecord};
use crate::wire::{LogRecord, Slice};

/// Complete actions and corrections, and the cursors that have them all.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) records: Vec<LogRecord>,
    pub(super) cursors: Cursors,
}

/// A step that integrates: its transaction, and what of the engine it needs.
pub(super) struct Integration<'a> {
    pub(super) txn: Box<dyn StoreTxn + 'a>,
    pub(super) waiting: &'a mut Vec<Slice>,
    registry: &'a Registry,
    tables: &'a Tables,
}

impl<S: Store> Engine<S> {
    /// Goes through history again from where something did not fit into this database, if tables or columns were added
    /// since. To be called after opening; integrating does it too.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn refit(&mut self) -> Result<Committed, EngineError> {
        self.integrating(|step| match step.txn.refit_from()? {
            Some(_) => step.integrate(Arrivals { records: Vec::new(), cursors: Cursors::new() }),
            None => Ok(Committed::default()),
        })
    }

    /// Runs a step that integrates. A power cut may take it, the server gives it again; unless something of this device's
    /// own waits for the server, and may be decided by it.
    pub(super) fn integrating<T>(
        &mut self,
        run: impl FnOnce(Integration<'_>) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        let Self { store, registry, tables, waiting, .. } = self;
        let txn = store.begin_replaceable()?;
        if txn.first_unsent()?.is_none() {
            return run(Integration { txn, waiting, registry, tables });
        }
        drop(txn);
        run(Integration { txn: store.begin()?, waiting, registry, tables })
    }
}

impl Integration<'_> {
    pub(super) fn integrate(self, arrivals: Arrivals) -> Result<Committed, EngineError> {
        let _step = tracing::debug_span!("integrate", records = arrivals.records.len()).entered();
        let Self { txn, waiting, registry, tables } = self;
        let mut standing =
            Standing { audiences: txn.audiences()?.into_iter().collect(), fell_beneath: BTreeSet::new() };
        let Arrived { records, usurped, start } = arrived(&*txn, arrivals.records, &mut standing)?;
        let traces = Traces::of(&records);
        for audience in &standing.fell_beneath {
            let state = standing.audiences[audience];
            txn.put_audience(audience, &AudienceState { stale: true, ..state })?;
        }
        let mut committed = Committed::default();
        if let Some(start) = start.into_iter().chain(txn.refit_from()?).min() {
            let mut replay = Replay::new(&*txn, registry, tables)?;
            replay.rewind_to(start)?;
            txn.begin_refit()?;
            for own in &usurped {
                let reason = "its id is another action's in the server's log".to_owned();
                replay.quarantine(own, QuarantineKind::RejectedByServer, reason)?;
            }
            replay.put(records)?;
            replay.forward_from(start)?;
            committed = replay.finish();
            txn.next_generation()?;
        }
        for (audience, cursor) in &arrivals.cursors {
            txn.put_cursor(audience, *cursor)?;
        }
        txn.commit()?;
        traces.tell();
        for slice in &mut *waiting {
            if arrivals.cursors.get(&slice.audience_key).is_some_and(|have| *have >= slice.through) {
                slice.records.clear();
            }
        }
        waiting.retain(|slice| !slice.records.is_empty());
        Ok(committed)
    }
}

/// Where this device stands, and which audiences need a snapshot after what arrived.
struct Standing {
    audiences: BTreeMap<AudienceKey, AudienceState>,
    fell_beneath: BTreeSet<AudienceKey>,
}

impl Standing {
    fn knows(&self, audience: &AudienceKey) -> bool {
        self.audiences.contains_key(audience)
    }

    /// Whether a row at this position can be integrated: not if its audience waits for a snapshot, nor beneath its floor,
    /// which makes it wait for one.
    fn takes(&mut self, audience: &AudienceKey, position: ReplayKey) -> bool {
        let Some(state) = self.audiences.get(audience) else { return false };
        if state.stale {
            return false;
        }
        if state.floor.is_some_and(|floor| position <= floor) {
            self.fell_beneath.insert(audience.clone());
            return false;
        }
        true
    }
}

/// What is new of what arrived, and the first position that it concerns.
struct Arrived {
    records: Vec<StoredRecord>,
    /// Pending actions of our own whose id the server has for another action.
    usurped: Vec<StoredRecord>,
    start: Option<ReplayKey>,
}

/// Drops what is here already, and rows that cannot be integrated. A pending action of our own that comes back is
/// accepted, as the server has it.
fn arrived(txn: &dyn StoreTxn, arrived: Vec<LogRecord>, standing: &mut Standing) -> Result<Arrived, StoreError> {
    let mut records = Vec::with_capacity(arrived.len());
    let mut usurped = Vec::new();
    let mut start: Option<ReplayKey> = None;
    let ids: Vec<ActionId> = arrived.iter().map(|logged| logged.record.id).collect();
    let here = txn.known(&ids)?;
    for LogRecord { record, row_count, rows, .. } in arrived {
        let position = record.position();
        let known = if here.contains(&record.id) { txn.record(record.id)? } else { None };
        // What ran here stays visible here until a snapshot replaces it.
        let ran_here = known.as_ref().is_some_and(|known| known.record.server_ingest_id.is_none());
        let mut rows = rows;
        rows.retain(|row| standing.takes(&row.audience_key, position) || ran_here && standing.knows(&row.audience_key));
        let mut stored = StoredRecord { row_count, executed: None, faithful: None, record, rows };
        let mut first = position;
        match known {
            Some(known) => {
                let adds = stored.rows.iter().any(|row| !known.rows.iter().any(|have| have.sequence == row.sequence));
                if known.record.server_ingest_id.is_some() && !adds {
                    continue;
                }
                // It may have been given another clock since it was sent.
                first = position.min(known.record.position());
                stored.executed = known.executed;
                if known.record.server_ingest_id.is_some() {
                    stored.rows = merged(known.rows, stored.rows);
                } else if is_other_action(&known.record.body, &stored.record.body) {
                    stored.executed = None;
                    usurped.push(known);
                }
            }
            None if stored.rows.is_empty() && row_count > 0 => continue,
            None => forget_quarantined(txn, &stored)?,
        }
        start = Some(start.map_or(first, |start| start.min(first)));
        records.push(stored);
    }
    Ok(Arrived { records, usurped, start })
}

/// An action that was taken out of history here while it was on its way is the server's after all: a retry would do it
/// twice.
fn forget_quarantined(txn: &dyn StoreTxn, stored: &StoredRecord) -> Result<(), StoreError> {
    if stored.record.client_id != txn.client_id()? {
        return Ok(());
    }
    let found = txn.inspect_quarantined(stored.record.id)?;
    if found.is_some_and(|found| found.quarantined.kind.may_be_accepted()) {
        txn.discard_quarantined(stored.record.id)?;
    }
    Ok(())
}

/// Corrections are named by what they say; an action's id says nothing of it.
fn is_other_action(known: &RecordBody, arrived: &RecordBody) -> bool {
    matches!(known, RecordBody::Action { .. }) && known != arrived
}

fn merged(mut known: Vec<Patch>, arrived: Vec<Patch>) -> Vec<Patch> {
    known.extend(arrived);
    known.sort_by_key(|row| row.sequence);
    known.dedup_by_key(|row| row.sequence);
    known
}

/// The newest arrival among a position's records.
pub(super) fn newest_of(records: impl Iterator<Item = Option<ServerIngestId>>) -> i64 {
    records.map(|number| number.map_or(crate::store::UNSENT, ServerIngestId::get)).max().unwrap_or(0)
}

impl Replay<'_> {
    /// Puts what arrived into the log, to be settled from there.
    ///
    /// Nearly all actions arrive on time and do here what their author says, so that is written with them at once:
    /// [`Self::learn_faithful`] then seldom has anything to write.
    fn put(&mut self, records: Vec<StoredRecord>) -> Result<(), StoreError> {
        let first_unsent = self.txn.first_unsent()?;
        for mut stored in records {
            self.txn.put_clock(stored.record.clock)?;
            let is_accepted_action =
                stored.record.server_ingest_id.is_some() && matches!(stored.record.body, RecordBody::Action { .. });
            let on_time = first_unsent.is_none_or(|unsent| stored.record.position() < unsent);
            if is_accepted_action && on_time && stored.is_whole() {
                stored.faithful = Some(true);
                self.presumed.insert(stored.record.id);
            }
            self.txn.put_record(&stored)?;
        }
        Ok(())
    }

    /// Undoes everything from `start` on, and forgets the unsent corrections there.
    pub(super) fn rewind_to(&mut self, start: ReplayKey) -> Result<(), StoreError> {
        let touched = rewind_from(self.txn, start)?;
        self.committed.rows.extend(touched);
        self.txn.remove_unsent_corrections(start)
    }
}

/// Undoes every effect of `start` and later positions; returns the rows that it touched.
pub(super) fn rewind_from(txn: &dyn StoreTxn, start: ReplayKey) -> Result<Vec<crate::model::RowKey>, StoreError> {
    let mut next = txn.at_or_after(start)?;
    while let Some(logged) = next {
        if txn.has_effects(logged.position.action_id)? {
            return txn.rewind(logged.position.action_id);
        }
        next = LogStore::after(txn, logged.position)?;
    }
    Ok(Vec::new())
}
