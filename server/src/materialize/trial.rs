//! Trials: whether a user may do what its record says, where that is not seen from the rows as they come to be. Nothing of a
//! trial stays.
//!
//! Place in the journey: within [`late`](super::late), and where an effect in order finds no row ([`super::apply`]). What
//! arrives beneath other effects may be hidden by them, and shows when they are amended away: so it is judged when it
//! arrives, as everything is.
//!
//! # Invariants
//! - Row Level Security judges every effect of every record, on a row that is there: on the row as it is now, if that is of
//!   the effect's audience; else on the row as it was at that point of the order, or when it was there last.
//! - An effect on a row that never was is refused: it would wait for somebody's row to come.
//! - Only what Postgres checks after policies is forgiven in a trial: whether the values are possible is for the fold to show.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, Effect, Operation, Patch, RowId, RowKey, Value};
use synchrotron_core::wire::RejectionKind;

use super::apply::must_be;
use super::catalogue::{Reference, Table};
use super::fold::{Folded, Logged, columns_named};
use super::late::{Beneath, Change};
use super::statements::{Taken, Targets, audiences_of, insert};
use super::{MaterializeError, Materializer, Numbered};
use crate::pg::Acting;

impl Materializer<'_> {
    /// Tries an effect of an action that sits beneath others.
    pub(super) async fn try_effect(
        &mut self,
        record: Numbered<'_>,
        patch: &Patch,
        row: &Beneath<'_>,
    ) -> Result<(), MaterializeError> {
        let is_insert = matches!(patch.effect, Effect::Insert(_));
        let is_there = row.present.as_ref() == Some(&patch.audience_key);
        if is_there || is_insert && row.present.is_none() {
            return self.try_on(record, patch, None).await;
        }
        let is_own_before =
            |logged: &Logged| logged.record == record.upload.id && logged.patch.sequence < patch.sequence;
        let at_its_place = row.fold(|logged| logged.position < record.position || is_own_before(logged));
        if at_its_place.is_none() && !is_insert {
            return self.try_on_what_was(record, row.table, patch, row.present.as_ref()).await;
        }
        let from = row.present.as_ref();
        self.try_on(record, patch, Some(Setting { table: row.table, from, to: at_its_place })).await
    }

    /// Tries an effect that finds no row at its place, as if the row were there as it was last. To remove it again does
    /// nothing.
    pub(super) async fn try_on_what_was(
        &mut self,
        record: Numbered<'_>,
        table: &Table,
        patch: &Patch,
        present: Option<&AudienceKey>,
    ) -> Result<(), MaterializeError> {
        let key = patch.row_key();
        if matches!(patch.effect, Effect::Delete) {
            let was = self.last_audience(&key, record).await?;
            return must_be(was.ok_or_else(|| never_there(patch))?.as_str(), &patch.audience_key);
        }
        let Some(was) = self.row_that_was(&key, record.position, record.number).await? else {
            return Err(never_there(patch));
        };
        must_be(was.audience_key.as_str(), &patch.audience_key)?;
        self.try_on(record, patch, Some(Setting { table, from: present, to: Some(was) })).await
    }

    /// Tries a correction's effects on a row, which it has at the place of the action that it amends.
    pub(super) async fn try_amendment(
        &mut self,
        record: Numbered<'_>,
        patches: &[&Patch],
        row: &Beneath<'_>,
    ) -> Result<(), MaterializeError> {
        let change = Change {
            before: row.fold(|logged| logged.position <= record.position && logged.record != record.upload.id),
            after: row.fold(|logged| logged.position <= record.position),
        };
        if change.before.is_none() && change.after.is_none() {
            for patch in patches.iter().filter(|patch| patch.effect != Effect::Nothing) {
                self.try_on_what_was(record, row.table, patch, row.present.as_ref()).await?;
            }
            return Ok(());
        }
        let audience = change.before.as_ref().map(|row| row.audience_key.clone());
        let is_newest = row.history.logged.iter().all(|logged| logged.position <= record.position);
        if is_newest && audience == row.present && change.before != change.after {
            // It shows, so the user writes it. What is as it was before still says what late effects do not change.
            return Ok(());
        }
        let named = columns_named(&row.history.logged);
        self.actor.begin_trial().await?;
        let setting = Setting { table: row.table, from: row.present.as_ref(), to: change.before.clone() };
        self.set(record, patches[0], setting).await?;
        let written = self.write((row.table, &row.key), audience.as_ref(), change, &named, patches[0]).await;
        forgive(written)?;
        Ok(self.actor.end_trial().await?)
    }

    /// Tries one effect, on the row as it is or as it is set.
    async fn try_on(
        &mut self,
        record: Numbered<'_>,
        patch: &Patch,
        setting: Option<Setting<'_>>,
    ) -> Result<(), MaterializeError> {
        self.actor.begin_trial().await?;
        let set = match setting {
            Some(setting) => self.set(record, patch, setting).await,
            None => Ok(()),
        };
        match set {
            Ok(()) => forgive(Box::pin(self.apply_one(record, patch)).await)?,
            // A cascade has taken it: what it hangs on was removed by whoever was allowed to.
            Err(MaterializeError::Refused(_)) if patch.effect.operation() == Operation::Delete => {}
            Err(error) => return Err(error),
        }
        Ok(self.actor.end_trial().await?)
    }

    /// Makes the row what it is to be for the trial, as the server.
    async fn set(
        &mut self,
        record: Numbered<'_>,
        patch: &Patch,
        Setting { table, from, to }: Setting<'_>,
    ) -> Result<(), MaterializeError> {
        self.actor.act_as(Acting::Server).await?;
        let set = match &to {
            Some(row) => self.set_parents(record, table, row, GENERATIONS_MAX).await,
            None => Ok(()),
        };
        let change = Change { before: None, after: to };
        let set = match set {
            Ok(()) => self.write((table, &patch.row_key()), from, change, &BTreeSet::new(), patch).await,
            failed => failed,
        };
        match set {
            Ok(()) => Ok(self.actor.act_as(Acting::User).await?),
            Err(MaterializeError::Refused(_)) => Err(cannot_be_judged(patch)),
            trouble => trouble,
        }
    }

    /// Makes the rows again that a row refers to, if they are gone.
    async fn set_parents(
        &mut self,
        record: Numbered<'_>,
        table: &Table,
        row: &Folded,
        generations: u32,
    ) -> Result<(), MaterializeError> {
        for Reference { column, table } in table.references.iter().filter(|_| generations > 0) {
            let Some(Value::Text(id)) = row.columns.get(column) else { continue };
            let (Some((name, parent)), Ok(row_id)) = (self.catalogue.quoted_table(table), RowId::new(id.clone()))
            else {
                continue;
            };
            let key = RowKey { table: name.clone(), row_id };
            if audiences_of(parent, std::iter::once(&key.row_id)).run_one(self.actor.conn).await?.is_some() {
                continue;
            }
            if let Some(was) = self.row_that_was(&key, record.position, record.number).await? {
                Box::pin(self.set_parents(record, parent, &was, generations - 1)).await?;
                let made = Targets::one(parent, &key.row_id, &was.audience_key, &was.columns);
                insert(parent, made, Taken::LeftOut).run_one(self.actor.conn).await?;
            }
        }
        Ok(())
    }
}

/// So many rows above a row, each referring to the next, are made again with it.
const GENERATIONS_MAX: u32 = 8;

/// What a row is made for a trial.
struct Setting<'s> {
    table: &'s Table,
    /// In which audience it is, if it is there.
    from: Option<&'s AudienceKey>,
    /// What it is to be.
    to: Option<Folded>,
}

/// A constraint that a policy comes before.
fn forgive(tried: Result<(), MaterializeError>) -> Result<(), MaterializeError> {
    match tried {
        Err(MaterializeError::Refused(complaint)) if complaint.after_policies => Ok(()),
        tried => tried,
    }
}

/// The refusal of an effect that would wait for a row to come.
fn never_there(patch: &Patch) -> MaterializeError {
    let operation = patch.effect.operation().as_str();
    MaterializeError::refused(RejectionKind::Denied, format!("{operation} of a row that never was there"))
}

fn cannot_be_judged(patch: &Patch) -> MaterializeError {
    let operation = patch.effect.operation().as_str();
    let reason = format!("{operation} of a row that is gone, and cannot be made again to ask the policies");
    MaterializeError::refused(RejectionKind::Denied, reason)
}
