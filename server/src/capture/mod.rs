//! Plain SQL writes → records: what psql, a job, another service or one of the app's own triggers wrote to a tracked table
//! reaches devices like any action.
//!
//! Place in the journey: beside ingest. Triggers ([`install`], `0006_sql_writes.sql`) stage each row change in the
//! writer's transaction; after its commit, a server takes a few ([`staged`]), locks the heads of their audiences, looks at
//! the rows as they are now ([`present`]), and appends what the log lacks ([`effects`]) as patch-only records of its own.
//!
//! # Invariants
//! - A staged change goes in the transaction that appends its record: it is published once, whatever breaks and however
//!   many servers there are.
//! - Its record takes effect after everything that the log has of its rows and audiences, and its values are those that
//!   the rows have under the locks. So log and table agree, whatever was uploaded in between.
//! - What the server writes as an upload says is not published again. What becomes of it in the app's own triggers and
//!   cascades is.
//!
//! Cost: per pass, a few statements and one for each tracked table among its rows; per row that was written beneath the
//! server, the row's effects from its newest whole-row effect on.

mod effects;
mod install;
mod present;
mod records;
mod staged;

use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::PgPool;
use tokio_util::sync::CancellationToken;

pub(crate) use install::install;
#[cfg(test)]
pub(crate) use present::{NEWEST_EFFECTS, rows_with_ids};
#[cfg(test)]
pub(crate) use staged::TAKE;
pub(crate) use staged::is_staged;

use crate::clock::now_ms;
use crate::ingest::{append_own, lock_audiences};
use crate::materialize::Catalogue;
use crate::pg::query;
use crate::service::Service;
use crate::settings::Settings;

/// One server picks up at a time; any constant of ours.
const PICK_UP_LOCK: i64 = 0x5359_4e43_4852_4f02;

/// Under steady uploads, how long a process lets their commits gather before it looks.
const COMMITS_GATHER_FOR: Duration = Duration::from_millis(20);

/// Picks up staged writes after each commit of this process, and every so often, until told to stop.
pub(crate) async fn run(service: Service, stop: CancellationToken) {
    let poll_every = service.settings().sql_writes.poll_every;
    let mut committed = service.committed();
    while !stop.is_cancelled() {
        committed.mark_unchanged();
        if matches!(service.pick_up_sql_writes().await, Ok(1..)) {
            continue;
        }
        let next = async {
            tokio::select! {
                () = tokio::time::sleep(poll_every) => {}
                _ = committed.changed() => tokio::time::sleep(COMMITS_GATHER_FOR).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = next => {}
        }
    }
}

/// Publishes one batch of staged changes: how many there were. None if another server is at it.
pub(crate) async fn pick_up(
    pool: &PgPool,
    settings: &Settings,
    catalogue: &Catalogue,
) -> Result<usize, sqlx_core::Error> {
    let any = query("/* capture.any */ SELECT EXISTS (SELECT FROM synchrotron.staged_writes)").fetch_one(pool).await?;
    if !any.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let mut tx = pool.begin().await?;
    let locked = query("/* capture.lock */ SELECT pg_try_advisory_xact_lock($1)").bind(PICK_UP_LOCK);
    if !locked.fetch_one(&mut *tx).await?.try_get::<bool, _>(0)? {
        return Ok(0);
    }
    let tables: Vec<&str> = catalogue.tables().map(|(name, _)| name.as_str()).collect();
    let taken = staged::take(&mut tx, &tables, settings.sql_writes.batch_rows_max).await?;
    // Each record is of one change at least.
    let heads = lock_audiences(&mut tx, &taken.audiences(), taken.count).await?;
    let found = present::look_up(&mut tx, catalogue, &taken).await?;
    let records = records::records_of(&taken, &found, now_ms(), settings.max_record_bytes);
    if !records.is_empty() {
        append_own(&mut tx, catalogue, &records, &heads).await?;
    }
    tx.commit().await?;
    if taken.count > 0 {
        tracing::debug!(changes = taken.count, records = records.len(), "plain SQL writes were picked up");
    }
    Ok(taken.count)
}
