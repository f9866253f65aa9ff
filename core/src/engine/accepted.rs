//! What the server has accepted at one position: an action's shared patch, and the amendments of it.

use super::amend;
use crate::model::{Patch, RecordBody, ServerIngestId};
use crate::patch::{Amendment, NetEffects, effective_patch, net_effects};
use crate::store::{Logged, StoredRecord};

/// What the server has accepted at one position.
pub(super) struct Accepted<'l> {
    pub(super) shared: &'l [Patch],
    pub(super) amendments: Vec<Amendment>,
    pub(super) effective: Vec<Patch>,
    pub(super) records: Vec<&'l StoredRecord>,
}

impl<'l> Accepted<'l> {
    pub(super) fn of(logged: &'l Logged) -> Self {
        let shared = logged.action.as_ref().map_or(&[][..], |action| &action.rows);
        let amendments: Vec<Amendment> = logged.corrections.iter().flat_map(amend::amendments_of).collect();
        Self {
            effective: effective_patch(shared, &amendments),
            records: logged.action.iter().chain(&logged.corrections).collect(),
            shared,
            amendments,
        }
    }

    /// Whether an action that did this did, row by row and column by column, what is accepted.
    pub(super) fn is(&self, did: &[Patch]) -> bool {
        did == self.effective || net_effects(did) == net_effects(&self.effective)
    }

    /// The newest amendment of any of these rows.
    pub(super) fn newest_amendment_of(&self, rows: &NetEffects) -> Option<ServerIngestId> {
        let known = self.amendments.iter().filter(|amendment| rows.contains_key(&amendment.patch.audience_row()));
        known.filter_map(|amendment| amendment.server_ingest_id).max()
    }

    /// The words of the newest correction that has any.
    pub(super) fn newest_reason(&self) -> Option<String> {
        let newest_first = self.records.iter().max_by_key(|stored| match &stored.record.body {
            RecordBody::Correction { reason: Some(_), .. } => stored.record.server_ingest_id,
            RecordBody::Correction { reason: None, .. } | RecordBody::Action { .. } => None,
        });
        match newest_first.map(|stored| &stored.record.body) {
            Some(RecordBody::Correction { reason, .. }) => reason.clone(),
            Some(RecordBody::Action { .. }) | None => None,
        }
    }
}
