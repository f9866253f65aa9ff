//! Applies what arrives beneath other effects: its row is folded again from its history.
//!
//! Each late effect of an action is tried as the user ([`trial`](super::trial)), and then the fold is written by the server:
//! the user may do this to the row, and what others did later keeps its say. They take effect one after the other, beside
//! those of the record that are not late, so that constraints see what they saw on the device. A correction's effects on one
//! row go together, and their fold is written by the user itself. Only columns in which the fold before and after differ
//! are written.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, Columns, Patch, RowKey};

use super::apply::{hidden, must_be};
use super::catalogue::{Column, Table};
use super::error::wrong_audience;
use super::fold::{Folded, Logged, columns_named, fold_row};
use super::history::History;
use super::images;
use super::runs::Step;
use super::statements::{Taken, Targets, audiences_of, delete, insert, update};
use super::{MaterializeError, Materializer, Numbered, Refused};
use crate::pg::Acting;

/// A row's fold without and with some effects.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) before: Option<Folded>,
    pub(super) after: Option<Folded>,
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

/// A row that something arrives beneath.
#[derive(Debug)]
pub(super) struct Beneath<'t> {
    pub(super) table: &'t Table,
    pub(super) key: RowKey,
    /// Its effects, those of the record in question among them.
    pub(super) history: History,
    /// Its audience now, if it is there.
    pub(super) present: Option<AudienceKey>,
}

impl Beneath<'_> {
    /// The row after those of its effects that count.
    pub(super) fn fold(&self, counts: impl Fn(&Logged) -> bool) -> Option<Folded> {
        let logged: Vec<Logged> = self.history.logged.iter().filter(|logged| counts(logged)).cloned().collect();
        fold_row(self.history.base.clone(), &logged).row
    }

    /// The whole record, with all that is later, names the audience that the row has at each point, as far as the log did
    /// before it.
    fn check_labels(&self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        let History { base, logged } = &self.history;
        let others: Vec<Logged> = logged.iter().filter(|l| l.record != record.upload.id).cloned().collect();
        let (before, after) = (fold_row(base.clone(), &others), fold_row(base.clone(), logged));
        if after.mislabelled.is_subset(&before.mislabelled) { Ok(()) } else { Err(wrong_audience(patch)) }
    }
}

impl<'a> Materializer<'a> {
    /// Applies a record some of whose effects are late.
    pub(super) async fn apply_beneath(&mut self, record: Numbered<'a>) -> Result<(), Refused> {
        let blamed = |error: MaterializeError, patch: &Patch| error.at(patch).of(record.upload.id);
        for patch in &record.upload.rows {
            if !self.is_late(record, patch) {
                self.enqueue(Step { record, patch }).await?;
                continue;
            }
            self.flush().await?;
            let applied = if record.is_correction() {
                self.amend_row(record, patch).await
            } else {
                self.apply_late(record, patch).await
            };
            applied.map_err(|error| blamed(error, patch))?;
        }
        Ok(())
    }

    /// Lets one effect of an action take its place in its row's history.
    async fn apply_late(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        let row = self.row_beneath(record, patch).await?;
        row.check_labels(record, patch)?;
        self.try_effect(record, patch, &row).await?;
        let without = |logged: &Logged| logged.record != record.upload.id || logged.patch.sequence < patch.sequence;
        let with = |logged: &Logged| without(logged) || logged.patch.sequence == patch.sequence;
        let change = Change { before: row.fold(without), after: row.fold(with) };
        self.settle_late(record, patch, row, change, Acting::Server).await
    }

    /// Lets a correction's effects on an id replace those that the action has there, in the audiences that it names, all at
    /// once: at its first one.
    async fn amend_row(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<(), MaterializeError> {
        let key = patch.row_key();
        let patches: Vec<&Patch> = record.upload.rows.iter().filter(|other| other.row_key() == key).collect();
        if patches[0].sequence != patch.sequence {
            return Ok(());
        }
        let row = self.row_beneath(record, patch).await?;
        row.check_labels(record, patch)?;
        self.try_amendment(record, &patches, &row).await?;
        let change = Change { before: row.fold(|l| l.record != record.upload.id), after: row.fold(|_| true) };
        self.settle_late(record, patch, row, change, Acting::User).await
    }

    async fn row_beneath(&mut self, record: Numbered<'_>, patch: &Patch) -> Result<Beneath<'a>, MaterializeError> {
        let key = patch.row_key();
        let table = self.table(&key)?;
        let history = self.history_around(&key, record.position, record.number).await?;
        images::forget_from(self.actor.conn, &key, record.position).await?;
        let present = audiences_of(table, std::iter::once(&key.row_id)).run_one(self.actor.conn).await?;
        let present = present.and_then(|audience| AudienceKey::new(audience).ok());
        Ok(Beneath { table, key, history, present })
    }

    /// Writes what became of a row.
    async fn settle_late(
        &mut self,
        record: Numbered<'_>,
        patch: &Patch,
        row: Beneath<'_>,
        change: Change,
        acting: Acting,
    ) -> Result<(), MaterializeError> {
        if change.before == change.after || change.is_overtaken(row.present.as_ref()) {
            return Ok(());
        }
        let beneath = if change.needs_names_beneath(&row.history) {
            self.whole_history(&row.key, record.number).await?
        } else {
            Vec::new()
        };
        self.actor.act_as(acting).await?;
        let named = columns_named(row.history.logged.iter().chain(&beneath));
        self.write((row.table, &row.key), row.present.as_ref(), change, &named, patch).await
    }

    /// Gives a row that is `present`, in that audience, the columns in which the fold differs.
    pub(super) async fn write(
        &mut self,
        (table, key): (&Table, &RowKey),
        present: Option<&AudienceKey>,
        change: Change,
        named: &BTreeSet<&str>,
        patch: &Patch,
    ) -> Result<(), MaterializeError> {
        let row_id = &key.row_id;
        let targets = |audience: &AudienceKey, values: &Columns| Targets::one(table, row_id, audience, values);
        let statement = match (present, &change.after) {
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
