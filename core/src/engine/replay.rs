//! Forward: settles one position after the other, so that the rows are right after each, not only at the end.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::accepted::Accepted;
use super::amend::{self, Amended};
use super::integrate::newest_of;
use super::{Committed, fate};
use crate::action::{ActionError, Context, Executing, Registry, Tables};
use crate::model::{ActionId, AudienceKey, ClientId, Patch, RecordBody, ReplayKey};
use crate::patch::{effective_patch, net_effects};
use crate::store::{Fate, Logged, QuarantineKind, StoreError, StoreTxn, StoredRecord, UNSENT};

/// One pass over history from a start position.
pub(super) struct Replay<'a> {
    pub(super) txn: &'a dyn StoreTxn,
    pub(super) mine: BTreeSet<AudienceKey>,
    /// At or beneath the newest floor, rows are not as they were: nothing accepted is run there.
    floor: Option<ReplayKey>,
    pub(super) client_id: ClientId,
    pub(super) committed: Committed,
    registry: &'a Registry,
    tables: &'a Tables,
    /// New actions that were put as if this replica could judge them. Settling them tells.
    pub(super) presumed: BTreeSet<ActionId>,
}

/// What running an action did: its effects in sequence, or why it failed.
pub(super) type Ran = Result<Vec<Patch>, ActionError>;

impl<'a> Replay<'a> {
    pub(super) fn new(txn: &'a dyn StoreTxn, registry: &'a Registry, tables: &'a Tables) -> Result<Self, StoreError> {
        let client_id = txn.client_id()?;
        let audiences = txn.audiences()?;
        let floor = audiences.iter().filter_map(|(_, state)| state.floor).max();
        let mine = audiences.into_iter().map(|(audience, _)| audience).collect();
        Ok(Self {
            txn,
            registry,
            tables,
            mine,
            floor,
            client_id,
            committed: Committed::default(),
            presumed: BTreeSet::new(),
        })
    }

    /// Whether rows at this position are as they were when the log was first integrated here.
    pub(super) fn is_above_floors(&self, position: ReplayKey) -> bool {
        self.floor.is_none_or(|floor| position > floor)
    }

    pub(super) fn finish(self) -> Committed {
        self.committed
    }

    /// Settles every position from `start` on.
    pub(super) fn forward_from(&mut self, start: ReplayKey) -> Result<(), StoreError> {
        let mut newest = self.txn.newest_before(start)?;
        let mut next = self.txn.at_or_after(start)?;
        while let Some(mut logged) = next {
            let presumed = logged.action.as_mut().filter(|action| self.presumed.contains(&action.record.id));
            presumed.into_iter().for_each(|action| action.faithful = None);
            match self.settle(&logged, newest)? {
                Settled::At(arrived) => {
                    newest = newest.max(arrived);
                    if logged.newest != Some(newest) {
                        self.txn.remember_newest(logged.position, newest)?;
                    }
                    next = self.txn.after(logged.position)?;
                    if next.is_none() {
                        self.txn.put_back(logged.position.action_id)?;
                    }
                }
                Settled::Without(pending, reason) => {
                    let position = pending.record.position();
                    self.rewind_to(position)?;
                    self.quarantine(&pending, QuarantineKind::RejectedOnReplay, reason)?;
                    newest = self.txn.newest_before(position)?;
                    next = self.txn.at_or_after(position)?;
                }
            }
        }
        Ok(())
    }

    /// Settles one position.
    fn settle(&mut self, logged: &Logged, newest_beneath: i64) -> Result<Settled, StoreError> {
        match &logged.action {
            Some(action) if action.record.server_ingest_id.is_none() => self.settle_pending(action).map(Settled::At),
            _ => self.settle_accepted(logged, newest_beneath),
        }
    }

    /// Own pending: runs again, and what it does now becomes its patch. If it cannot, it goes to quarantine.
    fn settle_pending(&mut self, action: &StoredRecord) -> Result<i64, StoreError> {
        let id = action.record.id;
        self.txn.savepoint()?;
        let ran = match self.run(action)? {
            Some(ran) => ran,
            None => {
                // An older version of the app executed it; its patch is all there is.
                match self.txn.apply_patch(id, &action.rows)?.into_iter().next() {
                    Some(displaced) => Err(ActionError::Sql(displaced.constraint)),
                    None => Ok(action.rows.clone()),
                }
            }
        };
        let foreign = |rows: &Vec<Patch>| rows.iter().find(|row| !self.mine.contains(&row.audience_key)).cloned();
        let reason = match &ran {
            Ok(rows) => foreign(rows).map(|row| format!("the user is not in audience {}", row.audience_key)),
            Err(error) => Some(error.to_string()),
        };
        if let Some(reason) = reason {
            self.txn.rollback_to_savepoint()?;
            self.quarantine(action, QuarantineKind::RejectedOnReplay, reason)?;
            return Ok(0);
        }
        let rows = ran.expect("BUG: a failed run has a reason");
        self.txn.release_savepoint()?;
        self.committed.rows.extend(rows.iter().map(Patch::row_key));
        if rows != action.rows {
            self.txn.put_patch(id, &rows)?;
        }
        Ok(UNSENT)
    }

    /// Takes a pending action out of the log, for this reason.
    pub(super) fn quarantine(
        &mut self,
        action: &StoredRecord,
        kind: QuarantineKind,
        reason: String,
    ) -> Result<(), StoreError> {
        let id = action.record.id;
        self.txn.quarantine(id, kind, &reason)?;
        self.txn.remove_record(id)?;
        self.decide(action, Fate::Rejected { reason })
    }

    /// Accepted: runs again where that can be judged; what differs is amended here or set to the patch.
    fn settle_accepted(&mut self, logged: &Logged, newest_beneath: i64) -> Result<Settled, StoreError> {
        let accepted = Accepted::of(logged);
        let newest = newest_of(accepted.records.iter().map(|stored| stored.record.server_ingest_id));
        let id = logged.position.action_id;
        let mut own_reason = None;
        let fits = self.txn.fits(&accepted.effective);
        if !fits {
            self.txn.note_unfit(logged.position)?;
        }
        // What cannot be had whole here, or misses a row that is displaced, can neither be run nor judged.
        let on_its_rows = fits && self.is_above_floors(logged.position) && !self.txn.has_displaced()?;
        let ran = match logged.action.as_ref().filter(|action| on_its_rows && action.is_whole()) {
            Some(action) => self.try_run(action, &accepted)?.map(|ran| (action, ran)),
            None => None,
        };
        if let Some(action) = &logged.action {
            self.learn_faithful(action, ran.as_ref().map(|(_, ran)| ran), newest_beneath)?;
        }
        let mut amended = None;
        if let Some((action, ran)) = ran.as_ref().filter(|(_, ran)| !ran.is_accepted) {
            amended = self.amend(action, &accepted, ran, newest_beneath)?;
        }
        let mut effect = Cow::Borrowed(&accepted.effective);
        if let Some(Amended { record, amendments }) = &amended {
            effect = Cow::Owned(effective_patch(accepted.shared, &[&accepted.amendments[..], amendments].concat()));
            if let RecordBody::Correction { reason, .. } = &record.record.body {
                own_reason.clone_from(reason);
            }
            self.txn.put_clock(record.record.clock)?;
            self.txn.put_record(record)?;
        }
        let displaced = match ran {
            Some((_, ran)) if ran.is_accepted => Vec::new(),
            Some(_) | None => self.txn.apply_patch(id, &effect)?,
        };
        if let Some((pending, reason)) = self.pending_in_the_way(&displaced, logged.position)? {
            return Ok(Settled::Without(Box::new(pending), reason));
        }
        self.committed.rows.extend(effect.iter().map(Patch::row_key));
        // What ran here is told to whoever ran it, also if this device had another id when it was sent.
        let ran_here = |action: &&StoredRecord| action.record.client_id == self.client_id || action.executed.is_some();
        if let Some(action) = logged.action.as_ref().filter(ran_here) {
            let reason = own_reason.or_else(|| accepted.newest_reason());
            self.decide_accepted(action, &effect, reason.as_ref())?;
        }
        Ok(Settled::At(if amended.is_some() { UNSENT } else { newest }))
    }

    /// Runs an accepted action on the rows as they are. What it did stays exactly if it is the effective patch.
    fn try_run(&self, action: &StoredRecord, accepted: &Accepted<'_>) -> Result<Option<Outcome>, StoreError> {
        let Some(ran) = self.run(action)? else { return Ok(None) };
        let is_accepted = ran.as_ref().is_ok_and(|did| accepted.is(did));
        if !is_accepted {
            // Its own undo takes it back: a savepoint would copy every page that each action touches.
            self.txn.rewind(action.record.id)?;
        }
        Ok(Some(Outcome { ran, is_accepted }))
    }

    /// Runs a stored action in the present transaction; `None` if this version of the app does not know its tag, or does
    /// not read its arguments.
    pub(super) fn run(&self, stored: &StoredRecord) -> Result<Option<Ran>, StoreError> {
        let RecordBody::Action { tag, args } = &stored.record.body else { return Ok(None) };
        if !self.registry.knows(tag) {
            return Ok(None);
        }
        let executing = Executing {
            action_id: stored.record.id,
            client_id: stored.record.client_id,
            user_id: stored.record.user_id.clone(),
            clock: stored.record.clock,
        };
        self.txn.begin_action(stored.record.id)?;
        let mut context = Context::new(self.txn.as_sql(), self.tables, executing);
        let ran = self.registry.run(tag, args, &mut context);
        self.txn.end_action();
        context.finish()?;
        Ok(match ran {
            Some(Ok(())) => Some(Ok(self.txn.captured(stored.record.id)?)),
            Some(Err(error)) => Some(Err(error)),
            None => None,
        })
    }

    fn amend(
        &self,
        action: &StoredRecord,
        accepted: &Accepted<'_>,
        ran: &Outcome,
        newest_beneath: i64,
    ) -> Result<Option<Amended>, StoreError> {
        let did = ran.ran.as_deref().unwrap_or_default();
        let effects = self.amended_effects(action, accepted, &net_effects(did), newest_beneath)?;
        if effects.is_empty() {
            return Ok(None);
        }
        let user_id = self.txn.user_id()?.expect("BUG: history is somebody's");
        let maker = amend::Maker { client_id: self.client_id, user_id, clock: self.txn.clock()?.tick(0) };
        let overrules = accepted.newest_amendment_of(&effects);
        let effects = amend::in_order(effects, &accepted.effective, did);
        let amended = amend::correction(action.record.position(), effects, overrules, ran.ran.as_ref().err(), maker);
        Ok(if self.txn.is_refused(amended.record.record.id)? { None } else { Some(amended) })
    }

    /// Decides the fate of an accepted own action from its present effect, as far as that is visible here.
    pub(super) fn decide_accepted(
        &mut self,
        action: &StoredRecord,
        effect: &[Patch],
        reason: Option<&String>,
    ) -> Result<(), StoreError> {
        if action.is_whole() {
            self.decide(action, fate::of_accepted(action, effect, reason))
        } else if self.txn.fate(action.record.id)?.is_none() {
            self.decide(action, Fate::Confirmed)
        } else {
            Ok(())
        }
    }

    /// Decides a fate, and reports it if it is new.
    pub(super) fn decide(&mut self, action: &StoredRecord, fate: Fate) -> Result<(), StoreError> {
        let id = action.record.id;
        if self.txn.fate(id)?.as_ref() != Some(&fate) {
            self.txn.put_fate(id, action.record.clock, &fate)?;
            self.committed.fates.insert(id, fate);
        }
        Ok(())
    }
}

/// What became of a position.
enum Settled {
    /// It is done; this is the newest arrival there.
    At(i64),
    /// This pending action, further back, cannot stay, for this reason: go on from there without it.
    Without(Box<StoredRecord>, String),
}

/// What running an accepted action did here.
pub(super) struct Outcome {
    pub(super) ran: Ran,
    /// Whether that is its effective patch: then it stays as it was run.
    pub(super) is_accepted: bool,
}
