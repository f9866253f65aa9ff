//! Integrate: rewinds to the smallest new position, goes forward in the one order, advances the cursors.
//!
//! Place in the journey: the last hop of a remote action, and the hop where a local one may change. All commits or none.
//!
//! # Invariants
//! - I-05: positions are settled in strictly increasing replay-key order, from the start position to the end.
//! - I-06: what lies before the start position is not touched.
//! - I-07: if nothing is later than what arrives, nothing is rewound.

use std::collections::BTreeSet;

use super::replay::Replay;
use super::{Committed, Engine, EngineError};
use crate::model::{AudienceKey, Cursors, ReplayKey, ServerIngestId};
use crate::store::{LogStore, Store, StoreError, StoreTxn, StoredRecord};
use crate::wire::LogRecord;

/// Complete actions and corrections, and the cursors that have them all.
#[derive(Debug)]
pub(super) struct Arrivals {
    pub(super) records: Vec<LogRecord>,
    pub(super) cursors: Cursors,
}

impl<S: Store> Engine<S> {
    pub(super) fn integrate(&mut self, arrivals: Arrivals) -> Result<Committed, EngineError> {
        let txn = self.store.begin()?;
        let new = new_records(&*txn, arrivals.records)?;
        // Audiences may be gained by this very page.
        let mine: BTreeSet<AudienceKey> = txn.cursors()?.into_keys().chain(arrivals.cursors.keys().cloned()).collect();
        let mut committed = Committed::default();
        if let Some(start) = new.iter().map(|stored| stored.record.position()).min() {
            let mut replay = Replay::new(&*txn, &self.registry, &self.tables, mine)?;
            replay.rewind_to(start)?;
            for stored in &new {
                txn.put_clock(stored.record.clock)?;
                txn.put_record(stored)?;
            }
            replay.forward_from(start)?;
            committed = replay.finish();
            self.generation += 1;
        }
        for (audience, cursor) in &arrivals.cursors {
            txn.put_cursor(audience, *cursor)?;
        }
        txn.commit()?;
        for slice in &mut self.waiting {
            if arrivals.cursors.get(&slice.audience_key).is_some_and(|have| *have >= slice.through) {
                slice.records.clear();
            }
        }
        self.waiting.retain(|slice| !slice.records.is_empty());
        Ok(committed)
    }
}

/// Drops what is here already. A pending action of our own that comes back is accepted, as the server has it.
fn new_records(txn: &dyn StoreTxn, records: Vec<LogRecord>) -> Result<Vec<StoredRecord>, StoreError> {
    let mut new = Vec::with_capacity(records.len());
    for arrived in records {
        let mut stored = StoredRecord {
            row_count: arrived.row_count,
            executed: None,
            faithful: None,
            record: arrived.record,
            rows: arrived.rows,
        };
        if let Some(known) = txn.record(stored.record.id)? {
            let adds = stored.rows.iter().any(|row| !known.rows.iter().any(|have| have.sequence == row.sequence));
            if known.record.server_ingest_id.is_some() && !adds {
                continue;
            }
            stored.executed = known.executed;
            if known.record.server_ingest_id.is_some() {
                stored.rows = merged(known.rows, stored.rows);
            }
        }
        new.push(stored);
    }
    Ok(new)
}

fn merged(mut known: Vec<crate::model::Patch>, arrived: Vec<crate::model::Patch>) -> Vec<crate::model::Patch> {
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
