//! Log rows → canonical rows: the fold of effective patches in replay order, as Row Level Security allows.
//!
//! Place in the journey: after `append`, in the same transaction. No action code runs here. An effect that is the newest
//! of its row is applied as it is ([`apply`]); one that arrives beneath others folds its row again ([`late`]).
//!
//! # Invariants
//! - Every row equals the fold of its effective patches ([`fold`]).
//! - A user's effect is applied, or at least tried, as that user: what a policy forbids is `Denied`, never skipped.
//! - A row's real `audience_key` is the one that the patch names, before and after.
//! - Accepted history is never judged again.
//!
//! Cost: one statement per effect in order; for a late one, the effects of that one row from the newest whole-row effect
//! beneath it on.

mod apply;
mod catalogue;
mod fold;
mod forms;
mod history;
mod images;
mod late;
mod statements;
mod values;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use synchrotron_core::model::{AudienceKey, Patch, RecordBody, ReplayKey, RowKey};
use synchrotron_core::wire::{RejectionKind, UploadRecord};

#[cfg(test)]
pub(crate) use catalogue::is_audience_indexed;
pub(crate) use catalogue::{Catalogue, IdType, Table};
pub(crate) use fold::{Folded, Logged, ever_whole, fold_row};
pub(crate) use forms::FORMS;
#[cfg(test)]
pub(crate) use history::{EFFECTS, LAST_AUDIENCE, NEWEST, START};
pub(crate) use history::{logged_of, newest_positions};
#[cfg(test)]
pub(crate) use images::IMAGE;
pub(crate) use images::Image;
pub(crate) use values::{KindMismatch, takes};

use crate::pg::{Acting, Actor, Complaint, classify, query};

/// Why a record was not materialized.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MaterializeError {
    /// The record is at fault.
    #[error("refused: {}", .0.reason)]
    Refused(Complaint),
    /// The server is.
    #[error(transparent)]
    Database(sqlx_core::Error),
}

impl From<sqlx_core::Error> for MaterializeError {
    fn from(error: sqlx_core::Error) -> Self {
        match classify(error) {
            Ok(complaint) => Self::Refused(complaint),
            Err(error) => Self::Database(error),
        }
    }
}

impl MaterializeError {
    fn refused(kind: RejectionKind, reason: impl Into<String>) -> Self {
        Self::Refused(Complaint { kind, reason: reason.into() })
    }

    /// Says which row of the record is complained about.
    fn at(self, patch: &Patch) -> Self {
        match self {
            Self::Refused(Complaint { kind, reason }) => {
                Self::refused(kind, format!("row {} (table {}): {reason}", patch.sequence, patch.table))
            }
            database => database,
        }
    }
}

/// A record that has its number and is in the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbered<'b> {
    /// As uploaded.
    pub(crate) upload: &'b UploadRecord,
    /// Where it takes effect.
    pub(crate) position: ReplayKey,
    /// Its server_ingest_id.
    pub(crate) number: i64,
}

/// Applies the records of one upload, one after the other.
#[derive(Debug)]
pub(crate) struct Materializer<'a> {
    actor: Actor<'a>,
    catalogue: &'a Catalogue,
    /// Audiences that the uploader may write to.
    audiences: &'a BTreeSet<AudienceKey>,
    /// The newest position of each row's effects that are applied by now.
    newest: HashMap<RowKey, ReplayKey>,
    /// The largest number of the upload: later ones of it are in the log, but not applied yet.
    last_number: i64,
}

impl<'a> Materializer<'a> {
    /// For records that are in the log already; `newest` is from before they were.
    pub(crate) const fn new(
        actor: Actor<'a>,
        catalogue: &'a Catalogue,
        audiences: &'a BTreeSet<AudienceKey>,
        newest: HashMap<RowKey, ReplayKey>,
        last_number: i64,
    ) -> Self {
        Self { actor, catalogue, audiences, newest, last_number }
    }

    /// Prepares the transaction for a run of [`Materializer::record`].
    pub(crate) async fn begin(&mut self) -> Result<(), sqlx_core::Error> {
        self.defer_constraints().await
    }

    /// Applies one record and checks the constraints that its action left for last.
    pub(crate) async fn record(&mut self, record: Numbered<'_>) -> Result<(), MaterializeError> {
        let correction = matches!(record.upload.body, RecordBody::Correction { .. });
        let mut late: BTreeMap<RowKey, Vec<&Patch>> = BTreeMap::new();
        for patch in &record.upload.rows {
            let key = patch.row_key();
            let newest = self.newest.get(&key).copied();
            if correction || newest.is_some_and(|newest| newest > record.position) {
                late.entry(key).or_default().push(patch);
            } else {
                self.apply(record, patch).await?;
            }
        }
        for (key, patches) in &late {
            self.apply_late(record, key, patches).await?;
        }
        for patch in &record.upload.rows {
            let newest = self.newest.entry(patch.row_key()).or_insert(record.position);
            *newest = record.position.max(*newest);
        }
        self.check_constraints().await
    }

    /// Ends the run, acting as the server again.
    pub(crate) async fn end(mut self) -> Result<Actor<'a>, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        Ok(self.actor)
    }

    fn table(&self, key: &RowKey) -> Result<&'a Table, MaterializeError> {
        let unknown = || MaterializeError::refused(RejectionKind::UnknownTable, format!("table {}", key.table));
        self.catalogue.table(&key.table).ok_or_else(unknown)
    }

    /// An action is one transaction on its device, so its constraints hold when it ends, not only when the upload does.
    async fn check_constraints(&mut self) -> Result<(), MaterializeError> {
        if self.catalogue.has_deferrable {
            query("/* constraints.check */ SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *self.actor.conn).await?;
            self.defer_constraints().await?;
        }
        Ok(())
    }

    async fn defer_constraints(&mut self) -> Result<(), sqlx_core::Error> {
        if self.catalogue.has_deferrable {
            query("/* constraints.defer */ SET CONSTRAINTS ALL DEFERRED").execute(&mut *self.actor.conn).await?;
        }
        Ok(())
    }
}
