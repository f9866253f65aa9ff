//! Judging: where replay found a different effect, who is right?
//!
//! An action's author may always judge it; another replica may if its code, run on the rows as they were of all that had
//! arrived before the action, does exactly the action's patch. A replica that knows less never overrules an author.
//! `design.md` section 4 has the table that [`Replay::amended_effects`] is.

use std::collections::BTreeMap;

use super::accepted::Accepted;
use super::integrate::rewind_from;
use super::replay::{Outcome, Replay};
use crate::model::{AudienceKey, Columns, Effect, Patch, ReplayKey, RowKey, ServerIngestId};
use crate::patch::{Amendment, NetEffect, NetEffects, effective_patch, net_effects};
use crate::store::{Logged, StoreError, StoredRecord};

/// What the server knows an action to do to one row, and since when.
struct Known {
    audience_key: AudienceKey,
    effect: Effect,
    since: i64,
}

impl Replay<'_> {
    /// The rows on which this replica overrules what the server knows, each with the effect that it should have.
    pub(super) fn amended_effects(
        &self,
        action: &StoredRecord,
        accepted: &Accepted<'_>,
        did: &NetEffects,
        newest_beneath: i64,
    ) -> Result<NetEffects, StoreError> {
        let known = known_effects(action, accepted);
        let mut amended = NetEffects::new();
        let mut judge: Option<bool> = None;
        for key in known.keys().chain(did.keys().filter(|key| !known.contains_key(*key))) {
            let found = did.get(key);
            let Some(effect) = (match known.get(key) {
                None => found.map(|found| found.effect.clone()),
                Some(known) if found.map_or(&Effect::Nothing, |found| &found.effect) == &known.effect => None,
                Some(known) if newest_beneath > known.since => {
                    let may = match judge {
                        Some(may) => may,
                        None => *judge.insert(self.may_judge(action)?),
                    };
                    may.then(|| found.map_or(Effect::Nothing, |found| found.effect.clone()))
                }
                Some(known) => found.and_then(|found| with_added_columns(&known.effect, &found.effect)),
            }) else {
                continue;
            };
            let audience_key = found
                .map(|found| &found.audience_key)
                .or_else(|| known.get(key).map(|known| &known.audience_key))
                .expect("BUG: the row is known or was found")
                .clone();
            if self.mine.contains(&audience_key) {
                amended.insert(key.clone(), NetEffect { audience_key, effect });
            }
        }
        Ok(amended)
    }

    /// When an action is integrated with nothing late beneath it, the run tells for free whether it can be judged here.
    /// One that was put as if it could, and was not run or not in time, is not known.
    pub(super) fn learn_faithful(
        &mut self,
        action: &StoredRecord,
        ran: Option<&Outcome>,
        newest_beneath: i64,
    ) -> Result<(), StoreError> {
        let remembered = if self.presumed.remove(&action.record.id) { Some(true) } else { action.faithful };
        let on_time = action.record.server_ingest_id.is_some_and(|number| newest_beneath < number.get());
        let told = ran.filter(|_| on_time).map(|ran| ran.ran.as_ref().is_ok_and(|did| is_patch_of(action, did)));
        let faithful = action.faithful.or(told);
        if faithful != remembered {
            self.txn.remember_faithful(action.record.id, faithful)?;
        }
        Ok(())
    }

    fn may_judge(&self, action: &StoredRecord) -> Result<bool, StoreError> {
        if action.record.client_id == self.client_id {
            return Ok(true);
        }
        if let Some(faithful) = action.faithful {
            return Ok(faithful);
        }
        let Some(number) = action.record.server_ingest_id else { return Ok(false) };
        self.txn.savepoint()?;
        let faithful = self.run_clean(action, number);
        self.txn.rollback_to_savepoint()?;
        let faithful = faithful?;
        self.txn.remember_faithful(action.record.id, Some(faithful))?;
        Ok(faithful)
    }

    /// Runs an action on the rows as they were of all that had arrived before it. To be called in a savepoint.
    fn run_clean(&self, action: &StoredRecord, number: ServerIngestId) -> Result<bool, StoreError> {
        let position = action.record.position();
        if let Some(late) = self.txn.first_later_than(number, position)? {
            rewind_from(self.txn, late)?;
            if !self.refold(late, position, number)? {
                return Ok(false);
            }
        }
        Ok(match self.run(action)? {
            Some(Ok(did)) => is_patch_of(action, &did),
            Some(Err(_)) | None => false,
        })
    }

    /// Applies, from `late` up to `position`, what had arrived before `number`; false if that cannot be applied here.
    fn refold(&self, late: ReplayKey, position: ReplayKey, number: ServerIngestId) -> Result<bool, StoreError> {
        let mut next = self.txn.at_or_after(late)?;
        while let Some(logged) = next.filter(|logged| logged.position < position) {
            match self.txn.apply_patch(logged.position.action_id, &effective_before(&logged, number)) {
                Ok(displaced) if displaced.is_empty() => {}
                Ok(_) => return Ok(false),
                Err(StoreError::Sql(_)) => return Ok(false),
                Err(error) => return Err(error),
            }
            next = self.txn.after(logged.position)?;
        }
        Ok(true)
    }
}

/// Whether what a run did is the action's shared patch.
fn is_patch_of(action: &StoredRecord, did: &[Patch]) -> bool {
    did == action.rows || net_effects(did) == net_effects(&action.rows)
}

/// The effective patch of a position as it was when `number` arrived.
fn effective_before(logged: &Logged, number: ServerIngestId) -> Vec<Patch> {
    let before = |stored: &&StoredRecord| stored.record.server_ingest_id.is_some_and(|arrived| arrived < number);
    let shared = logged.action.as_ref().filter(before).map_or(&[][..], |action| &action.rows);
    let amendments: Vec<Amendment> =
        logged.corrections.iter().filter(before).flat_map(super::amend::amendments_of).collect();
    effective_patch(shared, &amendments)
}

/// By row: the newest amendment, or else the action's own net effect.
fn known_effects(action: &StoredRecord, accepted: &Accepted<'_>) -> BTreeMap<RowKey, Known> {
    let since = |number: Option<ServerIngestId>| number.map_or(crate::store::UNSENT, ServerIngestId::get);
    let mut known: BTreeMap<RowKey, Known> = net_effects(accepted.shared)
        .into_iter()
        .map(|(key, NetEffect { audience_key, effect })| {
            (key, Known { audience_key, effect, since: since(action.record.server_ingest_id) })
        })
        .collect();
    let mut amendments: Vec<&Amendment> = accepted.amendments.iter().collect();
    amendments.sort_by_key(|amendment| since(amendment.server_ingest_id));
    for Amendment { patch, server_ingest_id } in amendments {
        let since = since(*server_ingest_id);
        let amended = Known { audience_key: patch.audience_key.clone(), effect: patch.effect.clone(), since };
        known.insert(patch.row_key(), amended);
    }
    known
}

/// An update that also sets columns which the known one does not.
fn with_added_columns(known: &Effect, found: &Effect) -> Option<Effect> {
    let (Effect::Update(known), Effect::Update(found)) = (known, found) else { return None };
    let added: Columns = found
        .iter()
        .filter(|(column, _)| !known.contains_key(*column))
        .map(|(column, value)| (column.clone(), value.clone()))
        .collect();
    (!added.is_empty()).then(|| Effect::Update(known.clone().into_iter().chain(added).collect()))
}
