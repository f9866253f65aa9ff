//! Applies what arrives beneath other effects, and corrections: the row is folded again from its history.
//!
//! Late effects of an action are tried as the user on the row as it is, taken back, and then the fold is written by the
//! server: the user may do this to the row, and what others did later keeps its say. A correction's fold is written by
//! the user itself. Only columns in which the fold before and after differ are written.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, Columns, Effect, Patch, RecordBody, RowKey};
use synchrotron_core::wire::RejectionKind;

use super::apply::{hidden, must_be};
use super::catalogue::{Column, Table};
use super::fold::{Folded, Logged, columns_named, fold_row};
use super::history::History;
use super::images;
use super::statements::{Taken, Targets, audiences_of, delete, insert, update};
use super::{MaterializeError, Materializer, Numbered};
use crate::pg::Acting;

/// A row's fold without and with the record in question.
struct Change {
    before: Option<Folded>,
    after: Option<Folded>,
}

impl Change {
    /// Whether columns vanish that the row has from its image, so that only effects beneath it can tell who set them.
    fn needs_names_beneath(&self, history: &History) -> bool {
        let (Some(before), Some(after), Some(_)) = (&self.before, &self.after, &history.base) else { return false };
        let named = columns_named(&history.logged);
        before.columns.keys().any(|name| !after.columns.contains_key(name) && !named.contains(name.as_str()))
    }

    /// Whether a plain SQL write has removed the row, or moved it to another audience, and is not in the log yet. It will
    /// be the newest of the row, so a late effect must not bring the row back.
    fn is_overtaken(&self, present: Option<&AudienceKey>) -> bool {
        self.before.as_ref().is_some_and(|row| Some(&row.audience_key) != present)
    }
}

impl Materializer<'_> {
    /// Lets the record's effects on one row take their place in the row's history.
    pub(super) async fn apply_late(
        &mut self,
        record: Numbered<'_>,
        key: &RowKey,
        patches: &[&Patch],
    ) -> Result<(), MaterializeError> {
        self.run_late(record, key, patches).await.map_err(|error| error.at(patches[0]))
    }

    async fn run_late(
        &mut self,
        record: Numbered<'_>,
        key: &RowKey,
        patches: &[&Patch],
    ) -> Result<(), MaterializeError> {
        let table = self.table(key)?;
        let history = self.history_around(key, record.position, record.upload.id, record.number).await?;
        images::forget_from(self.actor.conn, key, record.position).await?;
        let present = audiences_of(table, std::iter::once(&key.row_id)).run_one(self.actor.conn).await?;
        let present = present.and_then(|audience| AudienceKey::new(audience).ok());
        let correction = matches!(record.upload.body, RecordBody::Correction { .. });
        if correction {
            self.check_may_amend(record, patches, &history.logged)?;
        }
        let change = fold_both(record, &history, patches[0])?;
        if !correction {
            self.try_as_user(record, patches, present.as_ref()).await?;
        }
        if change.before == change.after || change.is_overtaken(present.as_ref()) {
            return Ok(());
        }
        let beneath = if change.needs_names_beneath(&history) {
            self.whole_history(key, record.number).await?
        } else {
            Vec::new()
        };
        self.actor.act_as(if correction { Acting::User } else { Acting::Server }).await?;
        let named = columns_named(history.logged.iter().chain(&beneath));
        self.write((table, key), present, change, &named, patches[0]).await
    }

    /// Whoever replaces an action's effects on a row must be in the audiences of all of them, and name one of these.
    fn check_may_amend(
        &self,
        record: Numbered<'_>,
        patches: &[&Patch],
        logged: &[Logged],
    ) -> Result<(), MaterializeError> {
        let replaced = logged.iter().filter(|l| l.position == record.position && l.record != record.upload.id);
        let labels: Vec<&AudienceKey> = replaced.map(|logged| &logged.patch.audience_key).collect();
        if labels.iter().any(|label| !self.audiences.contains(*label)) {
            return Err(hidden(patches[0]));
        }
        match patches.iter().find(|patch| !labels.is_empty() && !labels.contains(&&patch.audience_key)) {
            Some(patch) => Err(wrong_audience(patch)),
            None => Ok(()),
        }
    }

    /// Row Level Security decides on the row as it is, and nothing of it stays.
    async fn try_as_user(
        &mut self,
        record: Numbered<'_>,
        patches: &[&Patch],
        present: Option<&AudienceKey>,
    ) -> Result<(), MaterializeError> {
        // A row that was removed, or removed and made again for others, is beyond any policy.
        let judged = |patch: &Patch| match present {
            None => matches!(patches[0].effect, Effect::Insert(_)),
            Some(audience) => *audience == patch.audience_key,
        };
        if !patches.iter().any(|patch| judged(patch)) {
            return Ok(());
        }
        self.actor.begin_trial().await?;
        for (index, patch) in patches.iter().enumerate().filter(|(_, patch)| judged(patch)) {
            match self.apply_one(record, patch).await {
                // Whether the values are possible is for the fold to show; the policies were asked before.
                Err(MaterializeError::Refused(complaint))
                    if complaint.kind == RejectionKind::Constraint && index + 1 == patches.len() => {}
                result => result?,
            }
        }
        Ok(self.actor.end_trial().await?)
    }

    async fn write(
        &mut self,
        (table, key): (&Table, &RowKey),
        present: Option<AudienceKey>,
        change: Change,
        named: &BTreeSet<&str>,
        patch: &Patch,
    ) -> Result<(), MaterializeError> {
        let row_id = &key.row_id;
        let targets = |audience: &AudienceKey, values: &Columns| Targets::one(table, row_id, audience, values);
        let statement = match (&present, &change.after) {
            (None, None) => return Ok(()),
            (Some(audience), None) => delete(table, targets(audience, &Columns::new())),
            (None, Some(row)) => insert(table, targets(&row.audience_key, &row.columns), Taken::LeftOut),
            (Some(audience), Some(row)) => {
                let before = change.before.unwrap_or_else(|| Folded { columns: Columns::new(), ..row.clone() });
                let changed = differing(&row.columns, &before.columns);
                let reset = vanished(table, &before.columns, &row.columns, named);
                let moved = (*audience != row.audience_key).then_some(&row.audience_key);
                update(table, targets(audience, &changed), &reset, moved)
            }
        };
        match (statement.run_one(self.actor.conn).await?, &change.after) {
            (None, _) => Err(hidden(patch)),
            (Some(real), Some(row)) => must_be(&real, &row.audience_key),
            (Some(_), None) => Ok(()),
        }
    }
}

fn fold_both(record: Numbered<'_>, history: &History, patch: &Patch) -> Result<Change, MaterializeError> {
    let others: Vec<Logged> = history.logged.iter().filter(|l| l.record != record.upload.id).cloned().collect();
    let before = fold_row(history.base.clone(), &others);
    let after = fold_row(history.base.clone(), &history.logged);
    if !after.mislabelled.is_subset(&before.mislabelled) {
        return Err(wrong_audience(patch));
    }
    Ok(Change { before: before.row, after: after.row })
}

/// Columns that are not the same in `than`.
fn differing(columns: &Columns, than: &Columns) -> Columns {
    let differs = |(name, value): &(&String, _)| than.get(*name) != Some(*value);
    columns.iter().filter(differs).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Columns that effects had set and set no more. What no effect ever set is the database's own, and stays.
fn vanished<'t>(table: &'t Table, before: &Columns, after: &Columns, named: &BTreeSet<&str>) -> Vec<&'t Column> {
    let gone = before.keys().filter(|name| !after.contains_key(*name) && named.contains(name.as_str()));
    gone.filter_map(|name| table.columns.get(name)).filter(|column| column.writable).collect()
}

fn wrong_audience(patch: &Patch) -> MaterializeError {
    let reason = format!("the row is not of audience {} at that point", patch.audience_key);
    MaterializeError::refused(RejectionKind::AudienceMismatch, reason)
}
