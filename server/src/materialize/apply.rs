//! Applies effects that are the newest of their rows: as they are, as the user, a run at a time.
//!
//! An INSERT of an id that is taken sets the whole row. An UPDATE or DELETE that matches no row is looked at with the
//! server's eyes: a row that is gone is fine, one that is there and hidden is `Denied`, one of another audience is a
//! mismatch.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use synchrotron_core::model::{AudienceKey, Columns, Effect, Patch};
use synchrotron_core::wire::RejectionKind;

use super::catalogue::Table;
use super::fold::{Logged, columns_named};
use super::images::{self, BEFORE_ALL};
use super::runs::Run;
use super::statements::{Statement, Taken, Targets, audiences_of, insert, statement_of, update};
use super::{MaterializeError, Materializer, Numbered, Pace, Refused};
use crate::pg::Acting;

impl Materializer<'_> {
    /// Applies a run as the user.
    pub(super) async fn apply(&mut self, run: Run<'_>) -> Result<(), Refused> {
        let first = run.steps[0];
        let table = self.table(&first.patch.row_key()).map_err(|error| first.blame(error))?;
        let taken = if self.pace == Pace::Hopeful { Taken::Fails } else { Taken::LeftOut };
        let mut matched = self
            .run_statement(run.statement(table, taken))
            .await
            .map_err(|error| first.blame(if self.pace == Pace::Hopeful { error.too_fast() } else { error }))?;
        for step in run.steps {
            let audience = matched.remove(step.patch.row_id.as_str());
            let settled = self.settle(table, step.record, step.patch, audience).await;
            settled.map_err(|error| step.blame(error))?;
        }
        Ok(())
    }

    /// Applies one effect as the user.
    pub(super) async fn apply_one(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        let table = self.table(&patch.row_key())?;
        let columns = patch.effect.columns().cloned().unwrap_or_default();
        let targets = Targets::one(table, &patch.row_id, &patch.audience_key, &columns);
        let statement = statement_of(table, patch.effect.operation(), targets, Taken::LeftOut);
        let matched = self.run_statement(statement).await?.remove(patch.row_id.as_str());
        self.settle(table, record, patch, matched).await
    }

    async fn run_statement(
        &mut self,
        statement: Option<Statement>,
    ) -> Result<HashMap<String, String>, MaterializeError> {
        self.actor.act_as(Acting::User).await?;
        match statement {
            Some(statement) => Ok(statement.run(self.actor.conn).await?),
            None => Ok(HashMap::new()),
        }
    }

    /// What follows from the row that an effect matched, or from its absence.
    async fn settle(
        &mut self,
        table: &Table,
        record: Numbered<'_>,
        patch: &Patch,
        matched: Option<String>,
    ) -> Result<(), MaterializeError> {
        let matched = match (&patch.effect, matched) {
            (Effect::Nothing, _) => return Ok(()),
            (Effect::Insert(columns), None) => self.replace(table, record, patch, columns).await?,
            (_, matched) => matched,
        };
        match matched {
            Some(audience) => must_be(&audience, &patch.audience_key),
            None => self.explain_miss(table, record, patch).await,
        }
    }

    /// Sets the whole of a row whose id is taken: columns that only other effects set go back to their
    /// defaults. Others are the database's own and stay.
    async fn replace(
        &mut self,
        table: &Table,
        record: Numbered<'_>,
        patch: &Patch,
        columns: &Columns,
    ) -> Result<Option<String>, MaterializeError> {
        let key = patch.row_key();
        let history = self.whole_history(&key, record.number).await?;
        let is_first = |logged: &Logged| logged.record == record.upload.id && logged.patch.sequence >= patch.sequence;
        if history.iter().all(is_first) {
            let first = BTreeMap::from([(key, BEFORE_ALL)]);
            images::keep_present(self.actor.conn, self.catalogue, &first).await?;
        }
        let named: BTreeSet<&str> = columns_named(&history);
        let reset: Vec<_> = named
            .iter()
            .filter(|name| !columns.contains_key(**name))
            .filter_map(|name| table.columns.get(*name).filter(|column| column.writable))
            .collect();
        self.actor.act_as(Acting::User).await?;
        let targets = Targets::one(table, &patch.row_id, &patch.audience_key, columns);
        Ok(update(table, targets, &reset, None).run_one(self.actor.conn).await?)
    }

    /// Inserts a row that was taken a moment ago and is gone now, or that a trigger keeps out.
    async fn insert_again(&mut self, table: &Table, patch: &Patch) -> Result<(), MaterializeError> {
        let columns = patch.effect.columns().cloned().unwrap_or_default();
        let targets = Targets::one(table, &patch.row_id, &patch.audience_key, &columns);
        self.actor.act_as(Acting::User).await?;
        let made = insert(table, targets, Taken::Fails).run_one(self.actor.conn).await?;
        must_be(&made.ok_or_else(kept_out)?, &patch.audience_key)
    }

    /// Why an effect matched no row that the user may write.
    async fn explain_miss(
        &mut self,
        table: &Table,
        record: Numbered<'_>,
        patch: &Patch,
    ) -> Result<(), MaterializeError> {
        self.actor.act_as(Acting::Server).await?;
        let present = audiences_of(table, std::iter::once(&patch.row_id)).run_one(self.actor.conn).await?;
        match present {
            Some(audience) => {
                must_be(&audience, &patch.audience_key)?;
                Err(hidden(patch))
            }
            None if matches!(patch.effect, Effect::Insert(_)) => self.insert_again(table, patch).await,
            None => self.try_on_what_was(record, table, patch, None).await,
        }
    }
}

/// The refusal of a row that did not come to be, without an error.
fn kept_out() -> MaterializeError {
    MaterializeError::refused(RejectionKind::Constraint, "a trigger of the table keeps the row out")
}

/// The refusal of a write to a row that is there.
pub(super) fn hidden(patch: &Patch) -> MaterializeError {
    let operation = patch.effect.operation().as_str();
    MaterializeError::refused(RejectionKind::Denied, format!("the row is there, and no policy allows {operation}"))
}

/// The row's real audience must be the one that the patch names. Its real one is not told.
pub(super) fn must_be(real: &str, named: &AudienceKey) -> Result<(), MaterializeError> {
    if real == named.as_str() {
        return Ok(());
    }
    Err(MaterializeError::refused(RejectionKind::AudienceMismatch, format!("the row is not of audience {named}")))
}
