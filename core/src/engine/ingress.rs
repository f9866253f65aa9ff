//! Live slices and fetched pages become arrivals: complete actions with the cursors that they reach.
//!
//! Place in the journey: after the network, before [`super::integrate`]. Slices may be missing, doubled or out of order;
//! a slice is taken when it continues its audience, and an action when all its slices that belong here are here.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::integrate::{Arrivals, Integration};
use super::session::mark_stale;
use super::{Committed, Engine, EngineError, doctor};
use crate::model::{ActionId, AudienceKey, Cursor, Cursors, SliceTag};
use crate::store::{Store, StoreTxn};
use crate::wire::{FetchPage, FetchRequest, LogRecord, Slice};

/// What became of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It, and what waited for it, is integrated.
    Integrated(Committed),
    /// Nothing in it is new, or it is not for this device.
    Known,
    /// An action in it has more slices for this device, which are under way. If they do not come: fetch.
    Waiting,
    /// Something before it is missing here, or in it, or it was too large to be published: fetch.
    Gap,
}

impl<S: Store> Engine<S> {
    /// Takes a live slice.
    ///
    /// # Errors
    /// [`EngineError::EpochChanged`] if it is of another history.
    pub fn receive(&mut self, slice: Slice) -> Result<Received, EngineError> {
        self.integrating(|step| step.receive(slice))
    }

    /// What to ask the server for: everything after the cursors. This is where a pass begins, so the sync tables are
    /// [checked](super::Finding) here.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] before the first session; [`EngineError::Damaged`] if the sync tables contradict
    /// themselves: every row waits for a snapshot then, and the next [`Self::snapshot_request`] asks for it.
    pub fn fetch_request(&mut self) -> Result<FetchRequest, EngineError> {
        let txn = self.store.begin()?;
        if let Some(finding) = doctor::quick(&*txn)? {
            mark_stale(&*txn)?;
            txn.commit()?;
            return Err(EngineError::Damaged { finding });
        }
        Ok(FetchRequest {
            client_id: txn.client_id()?,
            epoch: txn.epoch()?.ok_or(EngineError::NoSession)?,
            cursors: txn.cursors()?,
        })
    }

    /// Takes a fetched page.
    ///
    /// # Errors
    /// [`EngineError::EpochChanged`] if it is of another history.
    pub fn integrate_page(&mut self, page: FetchPage) -> Result<Committed, EngineError> {
        self.integrate_pages(vec![page])
    }

    /// Takes pages that follow each other in one step: what is pending after their start runs again once, not once a page.
    ///
    /// # Errors
    /// [`EngineError::EpochChanged`] if one of them is of another history; none is taken then.
    pub fn integrate_pages(&mut self, pages: Vec<FetchPage>) -> Result<Committed, EngineError> {
        self.integrating(|step| {
            let expected = step.txn.epoch()?.ok_or(EngineError::NoSession)?;
            match pages.iter().find(|page| page.epoch != expected) {
                Some(page) => Err(EngineError::EpochChanged { expected, actual: page.epoch }),
                None => step.integrate(Arrivals::from_pages(pages)),
            }
        })
    }
}

impl Integration<'_> {
    fn receive(self, slice: Slice) -> Result<Received, EngineError> {
        let cursors = live_cursors(&*self.txn)?;
        let expected = self.txn.epoch()?.ok_or(EngineError::NoSession)?;
        if expected != slice.epoch {
            return Err(EngineError::EpochChanged { expected, actual: slice.epoch });
        }
        self.waiting.retain(|waiting| cursors.get(&waiting.audience_key).is_some_and(|have| *have < waiting.through));
        let Some(cursor) = cursors.get(&slice.audience_key).copied() else { return Ok(Received::Known) };
        let reached = self.reached(&slice.audience_key, cursor);
        if slice.through <= reached {
            return Ok(Received::Known);
        }
        if slice.prev > reached || !ends_with_a_record(&slice) {
            return Ok(Received::Gap);
        }
        self.waiting.push(slice);
        if !self.waiting.iter().flat_map(|slice| &slice.records).all(|record| self.is_complete(record, &cursors)) {
            return Ok(Received::Waiting);
        }
        let arrivals = Arrivals::from_slices(std::mem::take(self.waiting));
        self.integrate(arrivals).map(Received::Integrated)
    }

    /// Through where an audience is here, waiting slices included.
    fn reached(&self, audience: &AudienceKey, cursor: Cursor) -> Cursor {
        let waiting = self.waiting.iter().filter(|slice| slice.audience_key == *audience);
        waiting.map(|slice| slice.through).max().map_or(cursor, |through| through.max(cursor))
    }

    /// Whether every slice of the record that belongs to this device's audiences is here.
    fn is_complete(&self, record: &LogRecord, cursors: &Cursors) -> bool {
        let Some(number) = record.record.server_ingest_id else { return false };
        cursors.iter().all(|(audience, cursor)| {
            !record.slices.contains(&SliceTag::of(record.record.id, audience))
                || cursor.covers(number)
                || self.waiting.iter().any(|slice| slice.audience_key == *audience && holds(slice, record.record.id))
        })
    }
}

/// Whether the slice holds what it says that it reaches.
fn ends_with_a_record(slice: &Slice) -> bool {
    let last = slice.records.last().and_then(|record| record.record.server_ingest_id);
    last.is_some_and(|last| Cursor::through(last) == slice.through)
}

/// The cursors of the audiences that take live events: those that wait for a snapshot do not.
fn live_cursors(txn: &dyn StoreTxn) -> Result<Cursors, EngineError> {
    let audiences = txn.audiences()?.into_iter().filter(|(_, state)| !state.stale);
    Ok(audiences.map(|(audience, state)| (audience, state.cursor)).collect())
}

fn holds(slice: &Slice, action: ActionId) -> bool {
    slice.records.iter().any(|record| record.record.id == action)
}

impl Arrivals {
    /// Puts the slices of each action together again.
    fn from_slices(slices: Vec<Slice>) -> Self {
        let cursors = |slice: &Slice| Cursors::from([(slice.audience_key.clone(), slice.through)]);
        Self::gathered(slices.into_iter().map(|slice| (cursors(&slice), slice.records)))
    }

    /// Pages in the order in which they were asked for.
    fn from_pages(pages: Vec<FetchPage>) -> Self {
        Self::gathered(pages.into_iter().map(|page| (page.cursors, page.records)))
    }

    /// A record that comes in several parts, or more than once, is one record.
    fn gathered(parts: impl Iterator<Item = (Cursors, Vec<LogRecord>)>) -> Self {
        let mut arrivals = Self { records: Vec::new(), cursors: Cursors::new() };
        let mut places: BTreeMap<ActionId, usize> = BTreeMap::new();
        for (cursors, records) in parts {
            for (audience, through) in cursors {
                let cursor = arrivals.cursors.entry(audience).or_default();
                *cursor = through.max(*cursor);
            }
            for record in records {
                match places.entry(record.record.id) {
                    Entry::Occupied(place) => {
                        let known = &mut arrivals.records[*place.get()].rows;
                        known.extend(record.rows);
                        known.sort_by_key(|row| row.sequence);
                        known.dedup_by_key(|row| row.sequence);
                    }
                    Entry::Vacant(place) => {
                        place.insert(arrivals.records.len());
                        arrivals.records.push(record);
                    }
                }
            }
        }
        arrivals
    }
}
