//! Judging: where replay found a different effect, who is right?
//!
//! An action's author may always judge it; another replica may if its code, run on the rows as they were of all that had
//! arrived before the action, does exactly the action's patch. A replica that knows less never overrules an author.
//! `design.md` section 4 has the table that [`Replay::amended_effects`] is.

use std::collections::{BTreeMap, BTreeSet};

use super::accepted::Accepted;
use super::integrate::rewind_from;
use super::replay::{Outcome, Replay};
use crate::model::{AudienceRow, Columns, Effect, Patch, ReplayKey, ServerIngestId};
use crate::patch::{Amendment, NetEffects, effective_patch, net_effects};
use crate::store::{Logged, StoreError, StoredRecord};

/// What the server knows an action to do to one row, and since when.
struct Known {
    effect: Effect,
    since: i64,
}

impl Replay<'_> {
    /// The rows on which this replica overrules what the server knows, each with the effect that it should have.
    ///
    /// An id that is in several audiences, or comes into one that the user is not in, is one question: half an answer would
    /// leave a row in two audiences, or in none.
    pub(super) fn amended_effects(
        &self,
        action: &StoredRecord,
        accepted: &Accepted<'_>,
        did: &NetEffects,
        newest_beneath: i64,
    ) -> Result<NetEffects, StoreError> {
        let known = known_effects(action, accepted);
        let rows: BTreeSet<&AudienceRow> = known.keys().chain(did.keys()).collect();
        let mut amended = NetEffects::new();
        let mut judge: Option<bool> = None;
        for rows in Vec::from_iter(rows).chunk_by(|a, b| a.row == b.row) {
            let id = OneId::of(rows, &known, did);
            if id.is_as_known() || !rows.iter().all(|row| self.mine.contains(&row.audience_key)) {
                continue;
            }
            if id.since.is_none_or(|since| newest_beneath <= since) {
                amended.extend(id.added_columns());
                amended.extend(id.added_rows());
                continue;
            }
            let may = match judge {
                Some(may) => may,
                None => *judge.insert(self.may_judge(action)?),
            };
            amended.extend(if may { id.replaced() } else { id.added_rows() });
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
            if !self.refold(late, position, number)? || self.txn.has_displaced()? {
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

/// What is known and what a run did of one id, by audience.
struct OneId<'e> {
    effects: Vec<(&'e AudienceRow, Option<&'e Effect>, Option<&'e Effect>)>,
    /// The newest that is known: whoever said it had an opinion on all audiences of the id.
    since: Option<i64>,
}

impl<'e> OneId<'e> {
    fn of(rows: &[&'e AudienceRow], known: &'e BTreeMap<AudienceRow, Known>, did: &'e NetEffects) -> Self {
        let effects = rows.iter().map(|row| (*row, known.get(*row).map(|known| &known.effect), did.get(*row)));
        let since = rows.iter().filter_map(|row| known.get(*row)).map(|known| known.since).max();
        Self { effects: effects.collect(), since }
    }

    fn is_as_known(&self) -> bool {
        self.replaced().is_empty()
    }

    /// Everything as the run did it.
    fn replaced(&self) -> NetEffects {
        let found = self.effects.iter().map(|(row, known, found)| (*row, known, found.unwrap_or(&Effect::Nothing)));
        let other = found.filter(|(_, known, found)| **known != Some(*found));
        other.map(|(row, _, found)| (row.clone(), found.clone())).collect()
    }

    /// What the run did in audiences of which nothing is known; not where the row may be in another one.
    fn added_rows(&self) -> NetEffects {
        if self.effects.iter().any(|(_, known, _)| known.is_some_and(|known| *known != Effect::Delete)) {
            return NetEffects::new();
        }
        let added = self.effects.iter().filter(|(_, known, _)| known.is_none());
        added.filter_map(|(row, _, found)| found.map(|found| ((*row).clone(), found.clone()))).collect()
    }

    fn added_columns(&self) -> NetEffects {
        let both = self.effects.iter().filter_map(|(row, known, found)| Some((*row, (*known)?, (*found)?)));
        both.filter_map(|(row, known, found)| Some((row.clone(), with_added_columns(known, found)?))).collect()
    }
}

/// By row: the newest amendment, or else the action's own net effect.
fn known_effects(action: &StoredRecord, accepted: &Accepted<'_>) -> BTreeMap<AudienceRow, Known> {
    let since = |number: Option<ServerIngestId>| number.map_or(crate::store::UNSENT, ServerIngestId::get);
    let shared = net_effects(accepted.shared).into_iter();
    let executed = since(action.record.server_ingest_id);
    let mut known: BTreeMap<_, _> = shared.map(|(row, effect)| (row, Known { effect, since: executed })).collect();
    let mut amendments: Vec<&Amendment> = accepted.amendments.iter().collect();
    amendments.sort_by_key(|amendment| since(amendment.server_ingest_id));
    for Amendment { patch, server_ingest_id } in amendments {
        let amended = Known { effect: patch.effect.clone(), since: since(*server_ingest_id) };
        known.insert(patch.audience_row(), amended);
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
