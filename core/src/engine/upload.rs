//! Upload: one batch at a time, pending until its outcome says that Postgres has committed it.
//!
//! Place in the journey: between `execute` and the server. A publish acknowledgement means nothing here. A batch whose
//! outcome is unknown is sent again as it is; history that changed in between makes its outcome void, and the next fetch
//! tells what was accepted.

use std::collections::BTreeSet;

use super::held::Holding;
use super::integrate::newest_of;
use super::replay::Replay;
use super::{Committed, Engine, EngineError, Limits};
use crate::model::{ActionId, ActionRecord, BatchId, Patch, RecordBody, ReplayKey, RowKey, ServerIngestId};
use crate::store::{QuarantineKind, Store, StoreError, StoreTxn, StoredRecord, UNSENT};
use crate::wire::{Outcome, RejectionKind, UploadBatch, UploadRecord};

/// A batch on its way, and the history that it was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentBatch {
    /// What is sent.
    pub batch: UploadBatch,
    generation: i64,
}

/// What is due with the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Something of this device's own waits there: actions, or corrections.
    pub upload: bool,
    /// Rows wait for a snapshot. Until it is here, nothing of their audiences is integrated, and nothing is uploaded.
    pub snapshot: bool,
}

/// What an outcome led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Concluded {
    /// Accepted, or one record was taken out or set aside: more may be ready to go.
    Settled(Committed),
    /// Records got new clocks: make a new batch.
    Restamped(Committed),
    /// Fetch and integrate, then make a new batch.
    Fetch,
    /// Rows are stale: take a snapshot, then make a new batch.
    Snapshot,
    /// Not now. The outcome says why.
    Later,
}

/// The encoded size of a record with its rows, about as it travels.
pub(super) fn encoded_size(record: &ActionRecord, rows: &[Patch]) -> usize {
    rmp_serde::to_vec_named(&(record, rows)).expect("BUG: records always have a MessagePack form").len()
}

impl<S: Store> Engine<S> {
    /// The next batch of pending work in the one order, bounded in bytes and count; `None` if nothing can go now: nothing
    /// is pending, what is waits for the server's schema, or rows wait for a snapshot.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] before the first session.
    pub fn next_batch(&mut self, batch_id: BatchId) -> Result<Option<SentBatch>, EngineError> {
        let limits = self.limits;
        let holding = &self.holding;
        let txn = self.store.begin_reading()?;
        if txn.audiences()?.iter().any(|(_, state)| state.stale) {
            return Ok(None);
        }
        let records = ready(&*txn, holding, limits)?;
        if records.is_empty() {
            return Ok(None);
        }
        let epoch = txn.epoch()?.ok_or(EngineError::NoSession)?;
        let batch = UploadBatch { batch_id, client_id: txn.client_id()?, epoch, basis: txn.cursors()?, records };
        Ok(Some(SentBatch { batch, generation: txn.generation()? }))
    }

    /// Takes the outcome of a batch.
    ///
    /// # Errors
    /// [`EngineError::EpochChanged`] if the server has another history; [`EngineError::Store`].
    pub fn conclude(&mut self, sent: &SentBatch, outcome: &Outcome, now_ms: i64) -> Result<Concluded, EngineError> {
        match outcome {
            Outcome::Accepted { .. } | Outcome::Rejected { .. } | Outcome::ClockAhead { .. }
                if sent.generation != self.read(|txn| Ok(txn.generation()?))? =>
            {
                Ok(Concluded::Fetch)
            }
            Outcome::Accepted { ids } => {
                let accepted: Vec<_> = ids.iter().map(|(id, number)| (*id, *number)).collect();
                ids.keys().for_each(|id| self.holding.accepted(*id));
                self.accepted(&accepted).map(Concluded::Settled)
            }
            Outcome::Rejected { action, kind: RejectionKind::DuplicateId, reason } => self.duplicate(*action, reason),
            // The server's schema is older than the app's: nothing is wrong with the action.
            Outcome::Rejected {
                action,
                kind: kind @ (RejectionKind::UnknownTable | RejectionKind::UnknownColumn),
                reason,
            } => {
                self.holding.hold(*action, *kind, reason);
                Ok(Concluded::Settled(Committed::default()))
            }
            Outcome::Rejected { action, kind: _, reason } => self.rejected(*action, reason).map(Concluded::Settled),
            Outcome::BehindHead { .. } => Ok(Concluded::Fetch),
            Outcome::ClockAhead { server_time_ms, .. } => {
                self.restamp_ahead(*server_time_ms, now_ms).map(Concluded::Restamped)
            }
            Outcome::TooOld { .. } => self.rebase().map(|()| Concluded::Snapshot),
            Outcome::EpochChanged { current } => {
                Err(EngineError::EpochChanged { expected: sent.batch.epoch, actual: *current })
            }
            Outcome::Unauthenticated { .. } | Outcome::Retry { .. } | Outcome::Refused(_) => Ok(Concluded::Later),
        }
    }

    /// What waits for the server, or from it.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn due(&mut self) -> Result<Due, EngineError> {
        self.read(|txn| {
            let snapshot = txn.audiences()?.iter().any(|(_, state)| state.stale);
            Ok(Due { upload: txn.first_unsent()?.is_some(), snapshot })
        })
    }

    /// The server holds this id with other content. If it is ours after all (sent with an older clock, its answer lost), a
    /// fetch brings it, or else a snapshot knows it; only then is it given up.
    fn duplicate(&mut self, id: ActionId, reason: &str) -> Result<Concluded, EngineError> {
        let tries = self.disputed.entry(id).or_default();
        *tries += 1;
        match *tries {
            1 => Ok(Concluded::Fetch),
            2 => self.rebase().map(|()| Concluded::Snapshot),
            _ => self.rejected(id, reason).map(Concluded::Settled),
        }
    }

    fn accepted(&mut self, ids: &[(ActionId, ServerIngestId)]) -> Result<Committed, EngineError> {
        let txn = self.store.begin()?;
        let mut first: Option<ReplayKey> = None;
        for (id, number) in ids {
            if let Some(stored) = txn.record(*id)?.filter(|stored| stored.record.server_ingest_id.is_none()) {
                txn.accept(*id, *number)?;
                let position = stored.record.position();
                first = Some(first.map_or(position, |first| first.min(position)));
            }
        }
        let Some(first) = first else { return Ok(Committed::default()) };
        let mut replay = Replay::new(&*txn, &self.registry, &self.tables)?;
        if !replay.confirm_in_place(first)? {
            replay.rewind_to(first)?;
            replay.forward_from(first)?;
            txn.next_generation()?;
        }
        let committed = replay.finish();
        txn.commit()?;
        Ok(committed)
    }

    /// Takes one record out for ever; what comes after it is replayed without it.
    fn rejected(&mut self, id: ActionId, reason: &str) -> Result<Committed, EngineError> {
        let txn = self.store.begin()?;
        let Some(stored) = txn.record(id)?.filter(|stored| stored.record.server_ingest_id.is_none()) else {
            return Ok(Committed::default());
        };
        let mut replay = Replay::new(&*txn, &self.registry, &self.tables)?;
        let position = stored.record.position();
        replay.rewind_to(position)?;
        match stored.record.body {
            RecordBody::Action { .. } => {
                replay.quarantine(&stored, QuarantineKind::RejectedByServer, reason.to_owned())?;
            }
            RecordBody::Correction { .. } => txn.refuse_correction(id)?,
        }
        replay.forward_from(position)?;
        let committed = replay.finish();
        txn.next_generation()?;
        txn.commit()?;
        Ok(committed)
    }
}

/// Unsent records that may go, in the one order. One that is held stays, and so does a later one that touches a row of it.
fn ready(txn: &dyn StoreTxn, holding: &Holding, limits: Limits) -> Result<Vec<UploadRecord>, StoreError> {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut after = None;
    let mut staying: BTreeSet<RowKey> = BTreeSet::new();
    loop {
        let unsent = txn.unsent(after, limits.batch_records_max)?;
        let Some(last) = unsent.last() else { return Ok(records) };
        after = Some((last.record.position(), last.record.id));
        for stored in unsent {
            let touched = || stored.rows.iter().map(Patch::row_key);
            if holding.holds(stored.record.id) || touched().any(|row| staying.contains(&row)) {
                staying.extend(touched());
                continue;
            }
            bytes += encoded_size(&stored.record, &stored.rows);
            let full = bytes > limits.batch_bytes_max || records.len() == limits.batch_records_max;
            if full && !records.is_empty() {
                return Ok(records);
            }
            let ActionRecord { id, clock, body, trace_parent, .. } = stored.record;
            records.push(UploadRecord { id, clock, body, rows: stored.rows, trace_parent });
        }
    }
}

impl Replay<'_> {
    /// Confirms what was just accepted without running anything again; false if that does not do.
    ///
    /// It does where nothing but this device's own actions lies at or after `first`: they ran on exactly these rows, and
    /// everything beneath them had arrived before.
    fn confirm_in_place(&mut self, first: ReplayKey) -> Result<bool, StoreError> {
        if self.txn.has_displaced()? || !self.is_above_floors(first) || !only_own_from(self.txn, first, self.client_id)?
        {
            return Ok(false);
        }
        let mut newest = self.txn.newest_before(first)?;
        let mut next = self.txn.at_or_after(first)?;
        while let Some(logged) = next {
            let action = logged.action.as_ref().expect("BUG: only own actions lie here");
            if action.record.server_ingest_id.is_some() {
                self.decide_accepted(action, &action.rows, None)?;
            }
            newest = newest.max(newest_of(std::iter::once(action.record.server_ingest_id)));
            if logged.newest != Some(newest) {
                self.txn.remember_newest(logged.position, newest)?;
            }
            next = self.txn.after(logged.position)?;
        }
        Ok(true)
    }
}

fn only_own_from(txn: &dyn StoreTxn, first: ReplayKey, me: crate::model::ClientId) -> Result<bool, StoreError> {
    if txn.newest_before(first)? == UNSENT {
        return Ok(false);
    }
    let own = |stored: &StoredRecord| stored.record.client_id == me;
    let mut next = txn.at_or_after(first)?;
    while let Some(logged) = next {
        if !logged.corrections.is_empty() || !logged.action.as_ref().is_some_and(own) {
            return Ok(false);
        }
        next = txn.after(logged.position)?;
    }
    Ok(true)
}
