//! Compaction: old records leave the log; what they came to stays in the rows.
//!
//! Place in the journey: beside it, once an hour. What a device may lack and can no longer fetch, the session and `fetch`
//! tell it, and it takes a snapshot.
//!
//! # Invariants
//! - Age is the time of arrival, by the clock of Postgres. The history does not change: its epoch stays.
//! - The fold of what is left, onto images where effects are gone, is the row; and stays so, because nothing is taken any
//!   more at or beneath a compacted position (`ingest/age.rs`).
//! - A device is told to take a snapshot exactly when a record that another device wrote is gone and above its cursor.
//! - An id is remembered for much longer than its record: what was done is not done twice.
//!
//! Cost: what is deleted. No statement reads the log from end to end.

mod aging;
mod batch;
mod floors;
mod images;
mod task;
mod units;

use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

pub(crate) use task::run;
#[cfg(test)]
pub(crate) use {
    aging::{ABSENT, CLIENTS, IDS, OUTCOMES, SLICES},
    batch::{DELETE, DELETE_AUDIENCES, DELETE_ROWS, REMEMBER},
    floors::{FLOORS, RAISE},
    images::{CUTS, EFFECTS, FORGET, IMAGES},
    units::{AMENDED, OLDEST, PLACES, UNITS},
};

use crate::pg::words;
use crate::service::Service;
use crate::settings::CompactionSettings;
use batch::Batch;

/// How often a batch is tried whose audiences are busy.
const TRIES_MAX: u32 = 20;

/// What a run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Records that left the log.
    pub records: u64,
    /// Their effects on rows.
    pub rows: u64,
    /// Images of rows that were written in their place.
    pub images: u64,
    /// Audiences whose floors rose, counted once in each batch.
    pub audiences: u64,
    /// Batches that were committed.
    pub batches: u64,
    /// Old records that stay: something younger amends them, or uploads held their audiences all the time.
    pub left: u64,
    /// Whether another server was compacting: then this one left it to that.
    pub elsewhere: bool,
    /// Rejections of uploads that are forgotten.
    pub outcomes: u64,
    /// Slices that nobody published and that readers fetch instead.
    pub slices: u64,
    /// Ids of deleted records that are forgotten too.
    pub ids: u64,
    /// Devices that are forgotten.
    pub clients: u64,
}

/// Why a run ended early. What was committed before stays done; the next run goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompactionError {
    /// Postgres refused.
    #[error("postgres refused: {}", words(.0))]
    Database(#[from] sqlx_core::Error),
    /// Postgres says that it deleted, and did not: a policy, a trigger or a rule is in the way.
    #[error(
        "{actual} of {expected} records were deleted: a policy, rule or trigger on synchrotron.action_records keeps them"
    )]
    NotDeleted {
        /// How many were to go.
        expected: u64,
        /// How many went.
        actual: u64,
    },
}

/// Deletes everything that is older than the service's settings say, batch by batch, until done or told to stop.
///
/// Several servers may run it at once: one of them works.
///
/// # Errors
/// [`CompactionError`]; nothing is ever half deleted.
pub async fn run_once(service: &Service, stop: &CancellationToken) -> Result<Report, CompactionError> {
    let settings = &service.settings().compaction;
    let mut report = Report::default();
    if let Some(retention) = settings.retention() {
        compact(service, settings, retention, stop, &mut report).await?;
    }
    if !stop.is_cancelled() {
        aging::run(service.pool(), settings, &mut report).await?;
    }
    Ok(report)
}

async fn compact(
    service: &Service,
    settings: &CompactionSettings,
    retention: Duration,
    stop: &CancellationToken,
    report: &mut Report,
) -> Result<(), CompactionError> {
    let mut conn = service.pool().acquire().await?;
    let (mut after, mut tries, mut old) = (0, 0, 0);
    while !stop.is_cancelled() {
        match batch::run(&mut conn, service.catalogue(), settings, retention, after).await? {
            Batch::Done(deleted) => {
                tries = 0;
                old += deleted.old;
                report.records += deleted.records;
                report.rows += deleted.rows;
                report.images += deleted.images;
                report.audiences += deleted.audiences;
                report.batches += u64::from(deleted.records > 0);
                match deleted.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            Batch::Busy if tries < TRIES_MAX => tries += 1,
            Batch::Busy => {
                // At least the one that was next.
                old += 1;
                break;
            }
            Batch::Elsewhere => {
                report.elsewhere = true;
                break;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(settings.pause) => {}
            () = stop.cancelled() => {}
        }
    }
    report.left = old.saturating_sub(report.records);
    Ok(())
}
