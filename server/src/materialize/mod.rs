//! Log rows → canonical rows: the fold of effective patches in replay order, as Row Level Security allows.
//!
//! Place in the journey: after `append`, in the same transaction. No action code runs here. An effect that is the newest
//! of its row is applied as it is ([`apply`]); one that arrives beneath others folds its row again ([`late`]), and what does
//! not show is tried all the same ([`trial`]).
//!
//! # Invariants
//! - Every row equals the fold of its effective patches ([`fold`]).
//! - A user's effect is applied, or at least tried, as that user: what a policy forbids is `Denied`, never skipped.
//! - A row's real `audience_key` is the one that the patch names, before and after.
//! - Accepted history is never judged again.
//!
//! Cost: one statement for a run of effects in order ([`runs`]), or for those of many users ([`script`]); for a late one,
//! the effects of that one row from its newest image or whole-row effect beneath it on ([`images`]).

mod apply;
mod catalogue;
mod error;
mod fold;
mod forms;
mod history;
mod images;
mod inspect;
mod late;
mod present;
mod runs;
mod script;
mod statements;
mod trial;
mod values;
mod whole_script;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_postgres::PgConnection;
use synchrotron_core::model::{Patch, RecordBody, ReplayKey, RowKey, UserId};
use synchrotron_core::wire::{RejectionKind, UploadRecord};

pub(crate) use catalogue::{Catalogue, IdType, Table};
pub(crate) use error::{MaterializeError, Refused};
pub(crate) use fold::{Logged, fold_row};
pub(crate) use forms::FORMS;
#[cfg(test)]
pub(crate) use history::{EFFECTS, LAST_AUDIENCE, NEWEST, START};
pub(crate) use history::{columns_in_log, logged_of, newest_positions};
#[cfg(test)]
pub(crate) use images::{BENEATH, FORGET};
pub(crate) use images::{Image, keep_older};
pub(crate) use inspect::{inspect, is_audience_indexed};
pub(crate) use present::{columns_of, selected};
pub(crate) use values::{KindMismatch, takes};
pub(crate) use whole_script::WholeScript;

use crate::metrics::METRICS;
use crate::pg::{Acting, Actor, query};
use runs::{Run, Step};
use script::Script;

/// How many effects one statement may apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Those of several users, where all goes well.
    Scripts,
    /// As many of one user as go together, where all goes well.
    Hopeful,
    /// As many of one user as go together.
    Runs,
    /// One: what fails is known exactly.
    OneByOne,
}

/// So many rows in one statement are as good as any more; each is compared with each.
const RUN_MAX: usize = 100;

impl Pace {
    const fn run_max(self) -> usize {
        match self {
            Self::Scripts | Self::Hopeful | Self::Runs => RUN_MAX,
            Self::OneByOne => 1,
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

impl Numbered<'_> {
    const fn is_correction(&self) -> bool {
        matches!(self.upload.body, RecordBody::Correction { .. })
    }
}

/// Applies the records of uploads that are in the log already, one after the other.
#[derive(Debug)]
pub(crate) struct Materializer<'a> {
    actor: Actor<'a>,
    catalogue: &'a Catalogue,
    /// The newest position of each row's effects that are applied by now.
    newest: HashMap<RowKey, ReplayKey>,
    /// Rows that leave an image when all is applied.
    due: BTreeSet<RowKey>,
    /// The largest number of the transaction: later records of it are in the log, but not applied yet.
    last_number: i64,
    pace: Pace,
    /// Runs that are to be applied first.
    script: Script<'a>,
    /// Effects that are next.
    run: Option<Run<'a>>,
}

impl<'a> Materializer<'a> {
    /// For records that are in the log already; `newest` is from before they were.
    pub(crate) const fn new(
        actor: Actor<'a>,
        catalogue: &'a Catalogue,
        newest: HashMap<RowKey, ReplayKey>,
        last_number: i64,
        pace: Pace,
    ) -> Self {
        Self { actor, catalogue, newest, due: BTreeSet::new(), last_number, pace, script: Script::new(), run: None }
    }

    /// Prepares the transaction for these records: what their rows were before the log is kept.
    pub(crate) async fn begin(&mut self, records: impl Iterator<Item = Numbered<'a>>) -> Result<(), sqlx_core::Error> {
        let records = records.map(|record| record.upload);
        keep_older(self.actor.conn, self.catalogue, &self.newest, records).await?;
        self.defer_constraints().await
    }

    /// Applies the records of one upload, as its user. They leave images of rows that have effects before if they are to, or
    /// if their numbers say so.
    pub(crate) async fn upload(
        &mut self,
        user_id: &'a UserId,
        records: &[Numbered<'a>],
        leaves_images: bool,
    ) -> Result<(), Refused> {
        self.actor.turn_to(user_id);
        for record in records {
            self.record(*record).await?;
            self.note(*record, leaves_images || images::is_due(record.number));
        }
        self.close_run().await
    }

    /// Applies one record, or lets its effects wait for the next ones to be applied with.
    async fn record(&mut self, record: Numbered<'a>) -> Result<(), Refused> {
        let patches = &record.upload.rows;
        if patches.iter().any(|patch| self.is_late(record, patch)) {
            METRICS.records_late.increment(1);
            self.apply_beneath(record).await?;
        } else {
            for patch in patches {
                self.enqueue(Step { record, patch }).await?;
            }
        }
        let may_defer = |patch: &Patch| self.catalogue.table(&patch.table).is_some_and(|table| table.deferrable);
        if patches.iter().any(may_defer) {
            self.flush().await?;
            self.check_constraints().await.map_err(|error| error.of(record.upload.id))?;
        }
        Ok(())
    }

    /// Whether an effect sits beneath others of its row.
    fn is_late(&self, record: Numbered<'_>, patch: &Patch) -> bool {
        let newest = || self.newest.get(&patch.row_key()).copied();
        record.is_correction() || newest().is_some_and(|newest| newest > record.position)
    }

    /// Notes which of a record's rows it is the newest of, and, if they are due for an image, which are.
    fn note(&mut self, record: Numbered<'_>, due: bool) {
        for patch in &record.upload.rows {
            let key = patch.row_key();
            if due && self.newest.contains_key(&key) {
                self.due.insert(key.clone());
            }
            let newest = self.newest.entry(key).or_insert(record.position);
            *newest = record.position.max(*newest);
        }
    }

    async fn enqueue(&mut self, step: Step<'a>) -> Result<(), Refused> {
        let rest = match &mut self.run {
            Some(run) => run.extend(step, self.pace.run_max()).err(),
            None => Some(step),
        };
        if let Some(step) = rest {
            self.close_run().await?;
            self.run = Some(Run::of(step));
        }
        Ok(())
    }

    /// Ends the run: what comes next is another one.
    async fn close_run(&mut self) -> Result<(), Refused> {
        let Some(run) = self.run.take() else { return Ok(()) };
        if self.pace != Pace::Scripts {
            return self.apply(run).await;
        }
        self.script.add(self.actor.user_id(), run);
        if self.script.is_full() { self.run_script().await } else { Ok(()) }
    }

    /// Applies all that waits.
    pub(crate) async fn flush(&mut self) -> Result<(), Refused> {
        self.close_run().await?;
        self.run_script().await
    }

    /// The connection, acting as the server.
    pub(crate) async fn as_server(&mut self) -> Result<&mut PgConnection, sqlx_core::Error> {
        self.actor.act_as(Acting::Server).await?;
        Ok(self.actor.conn)
    }

    /// Ends, when all is applied: keeps the images that are due. It may act as the last user still.
    pub(crate) async fn end(mut self) -> Result<(), sqlx_core::Error> {
        if self.due.is_empty() {
            return Ok(());
        }
        self.actor.act_as(Acting::Server).await?;
        let due: BTreeMap<RowKey, ReplayKey> = self.due.iter().map(|key| (key.clone(), self.newest[key])).collect();
        images::keep_present(self.actor.conn, self.catalogue, &due).await
    }

    fn table(&self, key: &RowKey) -> Result<&'a Table, MaterializeError> {
        let unknown = || MaterializeError::refused(RejectionKind::UnknownTable, format!("table {}", key.table));
        self.catalogue.table(&key.table).ok_or_else(unknown)
    }

    /// An action is one transaction on its device, so its constraints hold when it ends, not only when the upload does.
    async fn check_constraints(&mut self) -> Result<(), MaterializeError> {
        query("/* constraints.check */ SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *self.actor.conn).await?;
        Ok(self.defer_constraints().await?)
    }

    async fn defer_constraints(&mut self) -> Result<(), sqlx_core::Error> {
        if self.catalogue.has_deferrable() {
            query("/* constraints.defer */ SET CONSTRAINTS ALL DEFERRED").execute(&mut *self.actor.conn).await?;
        }
        Ok(())
    }
}
