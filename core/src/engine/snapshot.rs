//! Snapshots: the rows of stale audiences are taken from the server, chunk by chunk, and swapped in at once.
//!
//! Place in the journey: instead of it, where the log does not reach. Chunks are kept as they come, so that a crash costs
//! one of them; rows change in the transaction of the last one, so that nobody ever reads a mix.
//!
//! # Invariants
//! - I-08: after a swap, everything that is not accepted yet lies above every floor: it has run on the rows above them.
//! - I-09: nothing accepted is run at or beneath a floor, since rows there are not as they were; its patch applies.

use std::collections::{BTreeMap, BTreeSet};

use super::integrate::rewind_from;
use super::replay::Replay;
use super::{Committed, Engine, EngineError};
use crate::action::{Registry, Tables};
use crate::model::{ActionId, AudienceKey, ClientId, Hlc, RecordBody, ReplayKey, ServerIngestId};
use crate::store::{AudienceState, Fate, LogStore, Staged, Store, StoreError, StoreTxn};
use crate::wire::{SnapshotChunk, SnapshotHeader, SnapshotRequest};

/// How many own records the server is asked about. More than that are pending only after a very long time offline;
/// whether the server has one of the others comes out when it is uploaded.
const IDS_MAX: usize = 10_000;

/// How far a snapshot is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More chunks follow: ask again.
    Loading {
        /// How many rows are here.
        rows_done: u64,
        /// How many there are.
        rows_total: u64,
    },
    /// The rows are in place.
    Done(Committed),
}

impl<S: Store> Engine<S> {
    /// What to ask the server for so that no audience stays stale; `None` if none is. Asking goes on where it stopped,
    /// also after a restart.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] before the first session.
    pub fn snapshot_request(&mut self) -> Result<Option<SnapshotRequest>, EngineError> {
        self.read(|txn| {
            let stale: Vec<AudienceKey> =
                txn.audiences()?.into_iter().filter(|(_, state)| state.stale).map(|(audience, _)| audience).collect();
            if stale.is_empty() {
                return Ok(None);
            }
            let resume = txn.staged()?.map(|staged| staged.next);
            Ok(Some(SnapshotRequest {
                client_id: txn.client_id()?,
                epoch: txn.epoch()?.ok_or(EngineError::NoSession)?,
                audiences: stale,
                // The answer is in the first chunk.
                ids: if resume.is_none() { pending_ids(txn)? } else { Vec::new() },
                resume,
            }))
        })
    }

    /// Takes a chunk. With the last one, the rows of its audiences are replaced, and what is pending runs again on them.
    /// A chunk that is not the next one changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Store`]; then the chunk was not taken.
    pub fn take_chunk(&mut self, chunk: &SnapshotChunk) -> Result<Progress, EngineError> {
        let txn = self.store.begin()?;
        let staged = txn.staged()?;
        let wanted = begins(&*txn, chunk)? || staged.as_ref().is_some_and(|staged| staged.next == chunk.position);
        if !wanted {
            return Ok(staged.map_or(Progress::Loading { rows_done: 0, rows_total: 0 }, |staged| loading(&staged)));
        }
        txn.stage(chunk)?;
        let staged = txn.staged()?.expect("BUG: a chunk was just staged");
        let progress = if chunk.last {
            txn.next_generation()?;
            Progress::Done(install(&*txn, &self.registry, &self.tables, &staged)?)
        } else {
            loading(&staged)
        };
        txn.commit()?;
        Ok(progress)
    }

    /// The server no longer holds the snapshot: the next request begins another.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn abandon_snapshot(&mut self) -> Result<(), EngineError> {
        let txn = self.store.begin()?;
        txn.drop_staged()?;
        Ok(txn.commit()?)
    }
}

/// Whether this is the first chunk of a snapshot that is waited for: a doubled one must not bring older rows back.
fn begins(txn: &dyn StoreTxn, chunk: &SnapshotChunk) -> Result<bool, StoreError> {
    let Some(header) = &chunk.header else { return Ok(false) };
    let stale: BTreeSet<AudienceKey> =
        txn.audiences()?.into_iter().filter(|(_, state)| state.stale).map(|(audience, _)| audience).collect();
    Ok(header.audiences.iter().all(|audience| stale.contains(&audience.audience_key)))
}

fn loading(staged: &Staged) -> Progress {
    let rows_total = staged.header.audiences.iter().map(|audience| audience.rows).sum();
    Progress::Loading { rows_done: staged.rows_done, rows_total }
}

/// Own actions that the server may have, the answer lost: pending ones, and those that were taken out of history here.
fn pending_ids(txn: &dyn StoreTxn) -> Result<Vec<ActionId>, StoreError> {
    let is_action = |body: &RecordBody| matches!(body, RecordBody::Action { .. });
    let unsent = txn.unsent(None, IDS_MAX)?;
    let pending = unsent.iter().filter(|stored| is_action(&stored.record.body)).map(|stored| stored.record.id);
    let quarantined = txn.quarantined()?;
    let taken_out = quarantined.iter().filter(|quarantined| quarantined.kind.may_be_accepted());
    Ok(pending.chain(taken_out.map(|quarantined| quarantined.id)).take(IDS_MAX).collect())
}

/// Purges audiences that the user has left.
pub(super) fn purge(
    txn: &dyn StoreTxn,
    registry: &Registry,
    tables: &Tables,
    lost: &[AudienceKey],
) -> Result<Committed, StoreError> {
    let mut swap = Swap::begin(txn)?;
    lost.iter().try_for_each(|audience| swap.forget(audience))?;
    txn.drop_staged()?;
    swap.finish(registry, tables)
}

/// Puts the staged rows in the place of those that are here.
fn install(txn: &dyn StoreTxn, registry: &Registry, tables: &Tables, staged: &Staged) -> Result<Committed, StoreError> {
    let mine: BTreeSet<AudienceKey> = txn.audiences()?.into_iter().map(|(audience, _)| audience).collect();
    let SnapshotHeader { audiences, known } = &staged.header;
    let mut swap = Swap::begin(txn)?;
    // A membership that ended meanwhile has no say any more.
    for audience in audiences.iter().filter(|audience| mine.contains(&audience.audience_key)) {
        swap.forget(&audience.audience_key)?;
        let state = AudienceState { cursor: audience.cursor, floor: audience.floor, stale: false };
        txn.put_audience(&audience.audience_key, &state)?;
        if let Some(floor) = audience.floor {
            txn.put_clock(floor.clock)?;
        }
    }
    for chunk in 0..staged.next.chunk {
        let mut rows = txn.staged_rows(chunk)?;
        rows.retain(|row| mine.contains(&row.audience_key));
        swap.committed.tables.extend(rows.iter().map(|row| row.table.clone()));
        txn.load_rows(&rows)?;
    }
    txn.drop_staged()?;
    swap.settle_known(known)?;
    swap.finish(registry, tables)
}

/// Whole audiences leave and come beneath what is not accepted yet.
struct Swap<'a> {
    txn: &'a dyn StoreTxn,
    /// Everything from here on was rewound.
    start: Option<ReplayKey>,
    committed: Committed,
}

impl<'a> Swap<'a> {
    fn begin(txn: &'a dyn StoreTxn) -> Result<Self, StoreError> {
        let mut committed = Committed::default();
        let start = txn.first_unsent()?;
        if let Some(start) = start {
            committed.rows.extend(rewind_from(txn, start)?);
            txn.remove_unsent_corrections(start)?;
        }
        Ok(Self { txn, start, committed })
    }

    fn forget(&mut self, audience: &AudienceKey) -> Result<(), StoreError> {
        self.committed.tables.extend(self.txn.forget_audience(audience)?);
        Ok(())
    }

    /// What the server has accepted is in the snapshot's rows: it is pending no longer.
    fn settle_known(&mut self, known: &BTreeMap<ActionId, ServerIngestId>) -> Result<(), StoreError> {
        for id in known.keys() {
            let pending = self.txn.record(*id)?.filter(|stored| stored.record.server_ingest_id.is_none());
            if let Some(stored) = pending {
                self.txn.remove_record(*id)?;
                if self.txn.fate(*id)?.is_none() {
                    self.confirm(*id, stored.record.clock)?;
                }
            }
            let taken_out = self.txn.inspect_quarantined(*id)?;
            if let Some(taken_out) = taken_out.filter(|found| found.quarantined.kind.may_be_accepted()) {
                self.txn.discard_quarantined(*id)?;
                self.confirm(*id, taken_out.clock)?;
            }
        }
        Ok(())
    }

    fn confirm(&mut self, id: ActionId, clock: Hlc) -> Result<(), StoreError> {
        self.txn.put_fate(id, clock, &Fate::Confirmed)?;
        self.committed.fates.insert(id, Fate::Confirmed);
        Ok(())
    }

    fn finish(self, registry: &Registry, tables: &Tables) -> Result<Committed, StoreError> {
        let Self { txn, start, mut committed } = self;
        txn.return_displaced()?;
        let Some(start) = start else { return Ok(committed) };
        let floor = txn.audiences()?.iter().filter_map(|(_, state)| state.floor).max();
        if txn.first_unsent()?.is_some_and(|first| floor.is_some_and(|floor| first <= floor)) {
            restamp(txn, None, txn.client_id()?)?;
        }
        let mut replay = Replay::new(txn, registry, tables)?;
        replay.forward_from(start)?;
        let replayed = replay.finish();
        committed.rows.extend(replayed.rows);
        committed.fates.extend(replayed.fates);
        Ok(committed)
    }
}

/// Gives pending actions from `from` on new clocks, in their order, after everything that was seen; returns where the first
/// of them is now. To be called when they are not applied, and without unsent corrections.
pub(super) fn restamp(
    txn: &dyn StoreTxn,
    from: Option<ReplayKey>,
    client_id: ClientId,
) -> Result<Option<ReplayKey>, StoreError> {
    let mut pending = Vec::new();
    let mut after = None;
    while let Some(stored) = LogStore::unsent(txn, after, 1)?.pop() {
        let position = stored.record.position();
        after = Some((position, stored.record.id));
        // A correction stands at the action that it amends, and goes where that goes.
        if position.action_id == stored.record.id && from.is_none_or(|from| position >= from) {
            pending.push(stored.record.id);
        }
    }
    let mut first = None;
    for id in pending {
        let mut stored = txn.record(id)?.expect("BUG: it was just listed");
        stored.record.clock = txn.clock()?.tick(0);
        stored.record.client_id = client_id;
        txn.put_clock(stored.record.clock)?;
        txn.put_record(&stored)?;
        first = first.or(Some(stored.record.position()));
    }
    Ok(first)
}
