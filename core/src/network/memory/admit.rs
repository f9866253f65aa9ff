//! Admits an upload, whole or not at all.
//!
//! Place in the journey: what a server does between `upload` and its outcome: shape, identity, clock, audiences, the gate,
//! then the log. It keeps the order of the Postgres server, so that a test sees the outcome that production gives.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Entry, History, Mismatch};
use crate::model::{
    ActionId, ActionRecord, AudienceKey, ClientId, Cursor, Cursors, Effect, RecordBody, ReplayKey, ServerIngestId,
    UserId,
};
use crate::wire::{Outcome, RejectionKind, UploadBatch, UploadRecord};

/// Who uploads what, at which server time.
pub(super) struct Upload<'a> {
    pub(super) user: &'a UserId,
    pub(super) audiences: &'a BTreeSet<AudienceKey>,
    pub(super) batch: &'a UploadBatch,
    pub(super) server_time_ms: i64,
    pub(super) clock_ahead_max_ms: i64,
}

impl Upload<'_> {
    /// The outcome; the log grows if it is [`Outcome::Accepted`], and only then.
    pub(super) fn admit(&self, history: &mut History) -> Outcome {
        self.try_admit(history).map_or_else(|refusal| *refusal, |ids| Outcome::Accepted { ids })
    }

    fn try_admit(&self, history: &mut History) -> Result<BTreeMap<ActionId, ServerIngestId>, Box<Outcome>> {
        let records = &self.batch.records;
        records.iter().try_for_each(check_shape)?;
        let mut fresh = Vec::new();
        for record in records {
            match history.entry(record.id) {
                Some(entry) => self.check_same(entry, record)?,
                None => fresh.push(record),
            }
        }
        if !fresh.is_empty() {
            fresh.iter().try_for_each(|record| self.check_clock(record))?;
            fresh.iter().try_for_each(|record| self.check_amended(record, history))?;
            fresh.iter().try_for_each(|record| self.check_audiences(record))?;
            fresh.iter().try_for_each(|record| self.check_age(record, history))?;
            self.check_gate(history)?;
            let len = history.log().len();
            if let Err(refusal) = fresh.iter().try_for_each(|record| self.append(record, history)) {
                history.truncate(len);
                return Err(refusal);
            }
        }
        let number = |record: &UploadRecord| history.entry(record.id).and_then(|entry| entry.record.server_ingest_id);
        Ok(records.iter().filter_map(|record| number(record).map(|number| (record.id, number))).collect())
    }

    fn append(&self, record: &UploadRecord, history: &mut History) -> Result<(), Box<Outcome>> {
        if let Some(entry) = history.entry(record.id) {
            return self.check_same(entry, record);
        }
        let entry = Entry { record: self.accepted(record), rows: record.rows.clone() };
        history.append(entry).map(|_| ()).map_err(|Mismatch { row, expected, actual }| {
            let reason = format!("row {} of {} belongs to {expected:?}, not to {actual:?}", row.row_id, row.table);
            rejected(record, RejectionKind::AudienceMismatch, reason)
        })
    }

    fn accepted(&self, record: &UploadRecord) -> ActionRecord {
        ActionRecord {
            id: record.id,
            clock: record.clock,
            client_id: self.batch.client_id,
            user_id: self.user.clone(),
            server_ingest_id: None,
            body: record.body.clone(),
            trace_parent: record.trace_parent,
        }
    }

    /// A record that is in the log already must be the same record.
    fn check_same(&self, entry: &Entry, record: &UploadRecord) -> Result<(), Box<Outcome>> {
        if is_same(entry, record, self.batch.client_id) {
            return Ok(());
        }
        Err(rejected(record, RejectionKind::DuplicateId, "the id is in use for other content".to_owned()))
    }

    fn check_clock(&self, record: &UploadRecord) -> Result<(), Box<Outcome>> {
        let latest = self.server_time_ms.saturating_add(self.clock_ahead_max_ms);
        if record.clock.millis() <= latest {
            return Ok(());
        }
        let (server_time_ms, max_ahead_ms) = (self.server_time_ms, self.clock_ahead_max_ms);
        Err(Box::new(Outcome::ClockAhead { server_time_ms, max_ahead_ms }))
    }

    /// A correction amends an action that is here. In which audience it may have a row, the fold decides.
    fn check_amended(&self, record: &UploadRecord, history: &History) -> Result<(), Box<Outcome>> {
        let RecordBody::Correction { amends, .. } = &record.body else { return Ok(()) };
        if self.has_action_at(*amends, history) {
            return Ok(());
        }
        let reason = format!("amends action {}, which is not in the log at that place", amends.action_id);
        Err(rejected(record, RejectionKind::Malformed, reason))
    }

    fn has_action_at(&self, position: ReplayKey, history: &History) -> bool {
        let is_it = |record: &ActionRecord| is_action(&record.body) && record.position() == position;
        match history.entry(position.action_id) {
            Some(entry) => is_it(&entry.record),
            None => self.batch.records.iter().any(|own| own.id == position.action_id && is_it(&self.accepted(own))),
        }
    }

    /// Nothing is accepted beneath what is compacted away: it could not be folded in any more.
    fn check_age(&self, record: &UploadRecord, history: &History) -> Result<(), Box<Outcome>> {
        let position = self.accepted(record).position();
        let horizon = record.rows.iter().filter_map(|patch| history.horizon(&patch.audience_key)).max();
        match horizon.filter(|horizon| position < *horizon) {
            Some(horizon) => Err(Box::new(Outcome::TooOld { oldest_ms: horizon.clock.millis() + 1 })),
            None => Ok(()),
        }
    }

    fn check_audiences(&self, record: &UploadRecord) -> Result<(), Box<Outcome>> {
        let foreign = record.rows.iter().find(|patch| !self.audiences.contains(&patch.audience_key));
        foreign.map_or(Ok(()), |patch| {
            let reason = format!("the user is not in audience {:?}", patch.audience_key);
            Err(rejected(record, RejectionKind::Denied, reason))
        })
    }

    /// The device has seen what others wrote to every audience that its user sees.
    fn check_gate(&self, history: &History) -> Result<(), Box<Outcome>> {
        let unseen = |audience: &&AudienceKey| {
            let basis = self.batch.basis.get(*audience).copied().unwrap_or(Cursor::START);
            history.after(audience, basis).any(|entry| entry.record.client_id != self.batch.client_id)
        };
        let behind = self.audiences.iter().filter(unseen);
        let heads: Cursors = behind.map(|audience| (audience.clone(), history.head(audience))).collect();
        if heads.is_empty() { Ok(()) } else { Err(Box::new(Outcome::BehindHead { heads })) }
    }
}

fn is_action(body: &RecordBody) -> bool {
    matches!(body, RecordBody::Action { .. })
}

/// Corrections are named by what they say: equal ones of several devices are one record, whoever came first.
fn is_same(entry: &Entry, record: &UploadRecord, client_id: ClientId) -> bool {
    let same_body = match (&entry.record.body, &record.body) {
        (RecordBody::Correction { amends: known, .. }, RecordBody::Correction { amends, .. }) => known == amends,
        (known, body) => known == body && entry.record.clock == record.clock && entry.record.client_id == client_id,
    };
    same_body && entry.rows == record.rows
}

fn check_shape(record: &UploadRecord) -> Result<(), Box<Outcome>> {
    let malformed = |reason: String| Err(rejected(record, RejectionKind::Malformed, reason));
    if let RecordBody::Action { args, .. } = &record.body
        && !args.is_map()
    {
        return malformed("arguments are not one MessagePack map".to_owned());
    }
    for (expected, patch) in (0..).zip(&record.rows) {
        if patch.sequence != expected {
            return malformed(format!("row sequence {} where {expected} belongs", patch.sequence));
        }
        if patch.effect == Effect::Nothing && is_action(&record.body) {
            return malformed(format!("operation NOTHING in row {expected} of an action"));
        }
    }
    Ok(())
}

fn rejected(record: &UploadRecord, kind: RejectionKind, reason: String) -> Box<Outcome> {
    Box::new(Outcome::Rejected { action: record.id, kind, reason })
}
