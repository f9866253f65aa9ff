//! Applies an effect that is the newest of its row: as it is, as the user.
//!
//! An INSERT of an id that is taken sets the whole row. An UPDATE or DELETE that matches no row is looked at with the
//! server's eyes: a row that is gone is fine, one that is there and hidden is `Denied`, one of another audience is a
//! mismatch.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, Columns, Effect, Patch};
use synchrotron_core::wire::RejectionKind;

use super::catalogue::Table;
use super::fold::columns_named;
use super::statements::{assignments, audience_of, delete, insert, update};
use super::{MaterializeError, Materializer, Numbered};
use crate::pg::Acting;

impl Materializer<'_> {
    /// Applies one effect as the user.
    pub(super) async fn apply(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        self.run(record, patch).await.map_err(|error| error.at(patch))
    }

    pub(super) async fn run(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        let table = self.table(&patch.row_key())?;
        let (row_id, audience_key) = (&patch.row_id, &patch.audience_key);
        self.actor.act_as(Acting::User).await?;
        let matched = match &patch.effect {
            Effect::Insert(columns) => {
                let statement = insert(table, row_id, audience_key, assignments(table, columns));
                match statement.run(self.actor.conn).await? {
                    Some(audience) => Some(audience),
                    None => self.replace(table, record, patch, columns).await?,
                }
            }
            Effect::Update(columns) => {
                let statement = update(table, row_id, audience_key, assignments(table, columns), &[], None);
                statement.run(self.actor.conn).await?
            }
            Effect::Delete => delete(table, row_id, audience_key).run(self.actor.conn).await?,
            Effect::Nothing => return Ok(()),
        };
        match matched {
            Some(audience) => must_be(&audience, audience_key),
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
        let history = self.whole_history(&patch.row_key(), record.number).await?;
        let named: BTreeSet<&str> = columns_named(&history);
        let reset: Vec<_> = named
            .iter()
            .filter(|name| !columns.contains_key(**name))
            .filter_map(|name| table.columns.get(*name).filter(|column| column.writable))
            .collect();
        self.actor.act_as(Acting::User).await?;
        let values = assignments(table, columns);
        Ok(update(table, &patch.row_id, &patch.audience_key, values, &reset, None).run(self.actor.conn).await?)
    }

    /// Why an effect matched no row that the user may write.
    async fn explain_miss(
        &mut self,
        table: &Table,
        record: Numbered<'_>,
        patch: &Patch,
    ) -> Result<(), MaterializeError> {
        self.actor.act_as(Acting::Server).await?;
        match audience_of(table, &patch.row_id).run(self.actor.conn).await? {
            Some(audience) => {
                must_be(&audience, &patch.audience_key)?;
                Err(hidden(patch))
            }
            // It was there a moment ago, and no upload holds this audience but ours.
            None if matches!(patch.effect, Effect::Insert(_)) => {
                Err(MaterializeError::Database(sqlx_core::Error::RowNotFound))
            }
            None => match self.last_audience(&patch.row_key(), record.number).await? {
                Some(audience) => must_be(&audience, &patch.audience_key),
                None => Ok(()),
            },
        }
    }
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
