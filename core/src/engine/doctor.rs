//! The doctor: quick checks at the start of each pass, a full check on demand.
//!
//! Quick checks read a few rows by index; they never fire in healthy traffic. The full check undoes and redoes all of
//! history in a transaction that is dropped, and compares.

use std::collections::BTreeMap;
use std::fmt;

use super::accepted::Accepted;
use super::{Engine, EngineError};
use crate::model::{ActionId, AudienceKey, AudienceRow, RowKey, RowsDigest};
use crate::store::{LogStore, Store, StoreError, StoreTxn};

/// Something that cannot be in a sound database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// The clock is behind something in the log: a new action would not be the last.
    ClockBehind {
        /// The newest action of the log.
        action: ActionId,
    },
    /// The newest undo does not belong to the newest action that has an effect.
    UndoMisplaced {
        /// The action whose undo is the newest.
        action: ActionId,
    },
    /// SQLite itself finds the file damaged.
    File {
        /// Its words.
        detail: String,
    },
    /// A row is not what history makes of it.
    RowDiffers {
        /// The row.
        row: RowKey,
    },
    /// History cannot be undone and redone here.
    History {
        /// Why.
        error: StoreError,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockBehind { action } => write!(f, "the clock is behind action {action}"),
            Self::UndoMisplaced { action } => write!(f, "the undo of action {action} is out of place"),
            Self::File { detail } => write!(f, "SQLite says: {detail}"),
            Self::RowDiffers { row } => {
                write!(f, "row {} of {} is not what history makes of it", row.row_id, row.table)
            }
            Self::History { error } => write!(f, "history cannot be redone: {error}"),
        }
    }
}

/// What a full check found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// What is wrong; nothing, in a sound database. At most [`Report::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// For each audience, how many rows the server's history gives here, and their digest: equal to the server's own where
    /// the cursor is at its head.
    pub digests: BTreeMap<AudienceKey, (u64, RowsDigest)>,
}

impl Report {
    /// How many findings a report holds.
    pub const FINDINGS_MAX: usize = 100;

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }
}

/// The checks of every pass. Each reads a row or two by index.
pub(super) fn quick(txn: &dyn StoreTxn) -> Result<Option<Finding>, StoreError> {
    if let Some(last) = txn.last_position()?.filter(|last| txn.clock().is_ok_and(|clock| clock < last.clock)) {
        return Ok(Some(Finding::ClockBehind { action: last.action_id }));
    }
    let Some(action) = txn.newest_undone()? else { return Ok(None) };
    let mut position = txn.last_position()?;
    for _ in 0..QUICK_STEPS_MAX {
        match position {
            Some(position) if position.action_id == action => return Ok(None),
            Some(other) if !txn.has_effects(other.action_id)? => position = txn.position_before(other)?,
            Some(_) | None => return Ok(Some(Finding::UndoMisplaced { action })),
        }
    }
    Ok(None)
}

/// How many actions without effect a quick check walks over.
const QUICK_STEPS_MAX: usize = 16;

impl<S: Store> Engine<S> {
    /// Checks everything: the file, and every row against history. Changes nothing; takes time with the size of the
    /// database.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the database cannot be read at all.
    pub fn check(&mut self) -> Result<Report, EngineError> {
        let txn = self.store.begin()?;
        let mut report = Report::default();
        report.findings.extend(quick(&*txn)?);
        report.findings.extend(txn.check_file()?.into_iter().map(|detail| Finding::File { detail }));
        let shown = rows_of(&*txn)?;
        match redo(&*txn, true) {
            Ok(()) => report.findings.extend(differences(&shown, &rows_of(&*txn)?)),
            Err(error) => report.findings.push(Finding::History { error }),
        }
        if redo(&*txn, false).is_ok() {
            for (audience, _) in txn.audiences()? {
                let digest = txn.digest(&audience)?;
                report.digests.insert(audience, digest);
            }
        }
        report.findings.truncate(Report::FINDINGS_MAX);
        Ok(report)
    }
}

type Rows = BTreeMap<RowKey, (AudienceKey, RowsDigest)>;

fn rows_of(txn: &dyn StoreTxn) -> Result<Rows, StoreError> {
    let mut rows = Rows::new();
    txn.each_row(&mut |AudienceRow { row, audience_key }, digest| {
        rows.insert(row, (audience_key, digest));
    })?;
    Ok(rows)
}

fn differences(shown: &Rows, redone: &Rows) -> Vec<Finding> {
    let differs = |row: &&RowKey| shown.get(*row) != redone.get(*row);
    let only_redone = redone.keys().filter(|row| !shown.contains_key(*row));
    let rows = shown.keys().chain(only_redone).filter(differs);
    rows.take(Report::FINDINGS_MAX).map(|row| Finding::RowDiffers { row: row.clone() }).collect()
}

/// Undoes all of history and applies its patches again, with or without what is not accepted yet.
fn redo(txn: &dyn StoreTxn, with_unsent: bool) -> Result<(), StoreError> {
    if let Some(action) = txn.oldest_undone()? {
        txn.rewind(action)?;
    }
    let mut next = txn.first_position()?.map(|first| txn.at_or_after(first)).transpose()?.flatten();
    while let Some(mut logged) = next {
        if !with_unsent {
            logged.action = logged.action.filter(|stored| stored.record.server_ingest_id.is_some());
            logged.corrections.retain(|stored| stored.record.server_ingest_id.is_some());
        }
        txn.apply_patch(logged.position.action_id, &Accepted::of(&logged).effective)?;
        next = LogStore::after(txn, logged.position)?;
    }
    Ok(())
}
