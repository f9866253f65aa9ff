//! The server's log and the rows that it comes to: the fold of effective patches in replay-key order.
//!
//! Place in the journey: beneath [`super::admit`], which appends, and [`super::page`], which reads.
//!
//! # Invariants
//! - Entry `n` of the log has server_ingest_id `n + 1`: numbers are assigned in order, without holes.
//! - `rows` is the fold of the log at every moment; only touched rows are folded again.
//! - A row changes its audience only by being deleted in between, at every place of the order.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{
    ActionId, ActionRecord, AudienceKey, Columns, Cursor, Patch, RecordBody, ReplayKey, RowKey, ServerIngestId,
};
use crate::patch::{Amendment, effective_patch, fold};

/// One row of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRow {
    /// Who may see it.
    pub audience_key: AudienceKey,
    /// Its columns, without the primary key and without `audience_key`.
    pub columns: Columns,
}

/// An accepted record with all its rows.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) record: ActionRecord,
    pub(super) rows: Vec<Patch>,
}

impl Entry {
    pub(super) fn audiences(&self) -> BTreeSet<&AudienceKey> {
        self.rows.iter().map(|patch| &patch.audience_key).collect()
    }
}

/// A patch names another audience than its row has at that place of the order.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) row: RowKey,
    pub(super) expected: AudienceKey,
    pub(super) actual: AudienceKey,
}

/// What stands at one position of the order: indices into the log.
#[derive(Debug, Default)]
struct Place {
    action: Option<usize>,
    corrections: Vec<usize>,
}

#[derive(Debug, Default)]
pub(super) struct History {
    log: Vec<Entry>,
    by_id: BTreeMap<ActionId, usize>,
    by_audience: BTreeMap<AudienceKey, Vec<usize>>,
    places: BTreeMap<ReplayKey, Place>,
    touching: BTreeMap<RowKey, BTreeSet<ReplayKey>>,
    rows: BTreeMap<RowKey, MemoryRow>,
    /// Records through here are compacted away. They stay in the log as if only their fold were left.
    compacted: Cursor,
}

impl History {
    pub(super) fn log(&self) -> &[Entry] {
        &self.log
    }

    pub(super) fn rows(&self) -> &BTreeMap<RowKey, MemoryRow> {
        &self.rows
    }

    pub(super) fn entry(&self, id: ActionId) -> Option<&Entry> {
        self.by_id.get(&id).map(|index| &self.log[*index])
    }

    pub(super) fn head(&self, audience: &AudienceKey) -> Cursor {
        self.head_at(audience, self.log.len())
    }

    /// The head of an audience when the log had `len` entries.
    pub(super) fn head_at(&self, audience: &AudienceKey, len: usize) -> Cursor {
        let indices = self.by_audience.get(audience).map_or(&[][..], Vec::as_slice);
        let older = indices.partition_point(|index| *index < len);
        indices[..older].last().map_or(Cursor::START, |index| Cursor::through(number(*index)))
    }

    /// Records of the audience through here are compacted away.
    pub(super) fn retained(&self, audience: &AudienceKey) -> Cursor {
        self.head_at(audience, usize::try_from(self.compacted.get()).unwrap_or(usize::MAX))
    }

    pub(super) fn compact(&mut self, through: Cursor) {
        self.compacted = self.compacted.max(through.min(Cursor::new(length(&self.log))));
    }

    /// The greatest position of any record that has rows in the audience.
    pub(super) fn floor(&self, audience: &AudienceKey) -> Option<ReplayKey> {
        self.greatest_position(audience, Cursor::new(i64::MAX))
    }

    /// The same of what is compacted away: nothing is accepted beneath it.
    pub(super) fn horizon(&self, audience: &AudienceKey) -> Option<ReplayKey> {
        self.greatest_position(audience, self.compacted)
    }

    fn greatest_position(&self, audience: &AudienceKey, through: Cursor) -> Option<ReplayKey> {
        let indices = self.by_audience.get(audience).map_or(&[][..], Vec::as_slice);
        let old = indices.iter().filter(|index| through.covers(number(**index)));
        old.map(|index| self.log[*index].record.position()).max()
    }

    /// The entries of one audience after a cursor, oldest first.
    pub(super) fn after(&self, audience: &AudienceKey, cursor: Cursor) -> impl Iterator<Item = &Entry> {
        let indices = self.by_audience.get(audience).map_or(&[][..], Vec::as_slice);
        let start = indices.partition_point(|index| cursor.covers(number(*index)));
        indices[start..].iter().map(|index| &self.log[*index])
    }

    /// Takes a record at the end of the log and folds the rows that it touches. After an error, [`Self::truncate`].
    pub(super) fn append(&mut self, mut entry: Entry) -> Result<ServerIngestId, Mismatch> {
        let index = self.log.len();
        entry.record.server_ingest_id = Some(number(index));
        let position = entry.record.position();
        let touched: BTreeSet<RowKey> = entry.rows.iter().map(Patch::row_key).collect();
        for audience in entry.audiences() {
            self.by_audience.entry(audience.clone()).or_default().push(index);
        }
        self.by_id.insert(entry.record.id, index);
        let place = self.places.entry(position).or_default();
        match entry.record.body {
            RecordBody::Action { .. } => place.action = Some(index),
            RecordBody::Correction { .. } => place.corrections.push(index),
        }
        self.log.push(entry);
        for row in touched {
            self.touching.entry(row.clone()).or_default().insert(position);
            self.fold_at(&row, position)?;
        }
        Ok(number(index))
    }

    /// Forgets everything from log entry `len` on.
    pub(super) fn truncate(&mut self, len: usize) {
        let mut touched = BTreeSet::new();
        self.compacted = self.compacted.min(Cursor::new(i64::try_from(len).unwrap_or(i64::MAX)));
        for index in (len..self.log.len()).rev() {
            let entry = self.log.pop().expect("BUG: the range ends at the log's end");
            let position = entry.record.position();
            self.by_id.remove(&entry.record.id);
            for audience in entry.audiences() {
                let indices = self.by_audience.get_mut(audience).expect("BUG: appended entries are indexed");
                indices.pop();
            }
            let place = self.places.get_mut(&position).expect("BUG: appended entries have a place");
            place.action = place.action.filter(|action| *action != index);
            place.corrections.retain(|correction| *correction != index);
            if place.action.is_none() && place.corrections.is_empty() {
                self.places.remove(&position);
            }
            touched.extend(entry.rows.iter().map(|patch| (patch.row_key(), position)));
        }
        for (row, position) in &touched {
            if !self.patches_at(*position).any(|patch| patch.row_key() == *row) {
                self.touching.entry(row.clone()).or_default().remove(position);
            }
        }
        for (row, _) in touched {
            let folded = self.fold_all(&row).expect("BUG: accepted history folds");
            self.set_row(row, folded);
        }
    }

    fn patches_at(&self, position: ReplayKey) -> impl Iterator<Item = &Patch> {
        let place = self.places.get(&position);
        let indices = place.into_iter().flat_map(|place| place.action.iter().chain(&place.corrections));
        indices.flat_map(|index| &self.log[*index].rows)
    }

    /// Folds a row again; where its newest position is the only news, from the row as it is.
    fn fold_at(&mut self, row: &RowKey, position: ReplayKey) -> Result<(), Mismatch> {
        let newest = self.touching[row].last() == Some(&position);
        let fresh = self.places[&position].corrections.is_empty();
        let folded = if newest && fresh {
            self.fold_position(row, position, self.rows.get(row).cloned())?
        } else {
            self.fold_all(row)?
        };
        self.set_row(row.clone(), folded);
        Ok(())
    }

    fn fold_all(&self, row: &RowKey) -> Result<Option<MemoryRow>, Mismatch> {
        let positions = self.touching.get(row).into_iter().flatten();
        positions.copied().try_fold(None, |folded, position| self.fold_position(row, position, folded))
    }

    fn fold_position(
        &self,
        row: &RowKey,
        position: ReplayKey,
        before: Option<MemoryRow>,
    ) -> Result<Option<MemoryRow>, Mismatch> {
        let effective = self.effective_at(position);
        effective.into_iter().filter(|patch| patch.row_key() == *row).try_fold(before, fold_checked)
    }

    fn effective_at(&self, position: ReplayKey) -> Vec<Patch> {
        let place = &self.places[&position];
        let shared = place.action.map_or(&[][..], |index| &self.log[index].rows);
        let corrections = place.corrections.iter().map(|index| &self.log[*index]);
        let amendments: Vec<Amendment> = corrections
            .flat_map(|entry| {
                let server_ingest_id = entry.record.server_ingest_id;
                entry.rows.iter().map(move |patch| Amendment { patch: patch.clone(), server_ingest_id })
            })
            .collect();
        effective_patch(shared, &amendments)
    }

    fn set_row(&mut self, row: RowKey, folded: Option<MemoryRow>) {
        match folded {
            Some(folded) => self.rows.insert(row, folded),
            None => self.rows.remove(&row),
        };
    }
}

fn length(log: &[Entry]) -> i64 {
    i64::try_from(log.len()).expect("BUG: a log in memory is shorter than i64::MAX")
}

fn number(index: usize) -> ServerIngestId {
    ServerIngestId::new(i64::try_from(index + 1).expect("BUG: a log in memory is shorter than i64::MAX"))
}

fn fold_checked(before: Option<MemoryRow>, patch: Patch) -> Result<Option<MemoryRow>, Mismatch> {
    if let Some(row) = before.as_ref().filter(|row| row.audience_key != patch.audience_key) {
        let expected = row.audience_key.clone();
        return Err(Mismatch { row: patch.row_key(), expected, actual: patch.audience_key });
    }
    let columns = fold(before.map(|row| row.columns), &patch.effect);
    Ok(columns.map(|columns| MemoryRow { audience_key: patch.audience_key, columns }))
}
