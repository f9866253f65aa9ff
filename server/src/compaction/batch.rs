//! One transaction of a compaction: choose, lock, keep what must stay, delete.
//!
//! # Invariants
//! - Of several servers one works at a time.
//! - Heads are locked as ingest locks them, in byte order, and only for a bounded batch; a head that an upload holds for
//!   long makes the batch wait for another time, never the other way round.
//! - Either all of a batch is gone, with its floors, images and ids written, or nothing is.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgDatabaseError};
use uuid::Uuid;

use super::units::{Candidates, Doomed, candidates};
use super::{CompactionError, floors, images};
use crate::materialize::Catalogue;
use crate::pg::query;
use crate::settings::CompactionSettings;

/// Held by the server that compacts; any constant of ours.
const COMPACTION_LOCK: i64 = 0x5359_4e43_4852_4f01;

/// What became of one batch.
#[derive(Debug)]
pub(super) enum Batch {
    /// It is committed.
    Done(Deleted),
    /// An upload holds a head: later.
    Busy,
    /// Another server compacts at this moment.
    Elsewhere,
}

/// What a committed batch did.
#[derive(Debug, Default)]
pub(super) struct Deleted {
    /// Old records that it looked at.
    pub(super) old: u64,
    /// Records that are gone.
    pub(super) records: u64,
    /// Their effects.
    pub(super) rows: u64,
    /// Images that were written.
    pub(super) images: u64,
    /// Audiences whose floors rose.
    pub(super) audiences: u64,
    /// Where to go on, if old records may follow.
    pub(super) next: Option<i64>,
}

/// Deletes what is old among the next records after a number.
pub(super) async fn run(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    settings: &CompactionSettings,
    retention: Duration,
    after: i64,
) -> Result<Batch, CompactionError> {
    let mut tx = conn.begin().await?;
    if !try_lock(&mut tx, settings.lock_within).await? {
        tx.rollback().await?;
        return Ok(Batch::Elsewhere);
    }
    match delete(&mut tx, catalogue, settings, retention, after).await {
        Ok(deleted) => {
            tx.commit().await?;
            Ok(Batch::Done(deleted))
        }
        Err(CompactionError::Database(error)) if is_busy(&error) => {
            tx.rollback().await?;
            Ok(Batch::Busy)
        }
        Err(error) => Err(error),
    }
}

async fn try_lock(conn: &mut PgConnection, lock_within: Duration) -> Result<bool, sqlx_core::Error> {
    query("/* compaction.timeout */ SELECT set_config('lock_timeout', $1, true)")
        .bind(format!("{}ms", lock_within.as_millis()))
        .execute(&mut *conn)
        .await?;
    let locked = query("/* compaction.lock */ SELECT pg_try_advisory_xact_lock($1)")
        .bind(COMPACTION_LOCK)
        .fetch_one(conn)
        .await?;
    locked.try_get(0)
}

async fn delete(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    settings: &CompactionSettings,
    retention: Duration,
    after: i64,
) -> Result<Deleted, CompactionError> {
    let Candidates { actions, old, next } = candidates(conn, after, retention, settings.batch_records).await?;
    let mut deleted = Deleted { old, next, ..Deleted::default() };
    if actions.is_empty() {
        return Ok(deleted);
    }
    let mut doomed = Doomed::read(conn, &actions).await?;
    query("/* compaction.heads */ SELECT FROM synchrotron.lock_heads($1, '{}')")
        .bind(doomed.audiences().into_iter().collect::<Vec<_>>())
        .execute(&mut *conn)
        .await?;
    doomed.keep_amended(conn).await?;
    let ids: Vec<Uuid> = doomed.records().map(|record| record.id).collect();
    deleted.images = images::settle(conn, catalogue, &ids).await?;
    deleted.audiences = floors::raise(conn, &doomed).await?;
    query(REMEMBER).bind(&ids).execute(&mut *conn).await?;
    deleted.rows = query(DELETE_ROWS).bind(&ids).execute(&mut *conn).await?.rows_affected();
    query(DELETE_AUDIENCES).bind(&ids).execute(&mut *conn).await?;
    deleted.records = query(DELETE).bind(&ids).execute(conn).await?.rows_affected();
    if deleted.records != ids.len() as u64 {
        return Err(CompactionError::NotDeleted { expected: ids.len() as u64, actual: deleted.records });
    }
    Ok(deleted)
}

/// Whether somebody else holds what is needed: lock_not_available, deadlock_detected.
fn is_busy(error: &sqlx_core::Error) -> bool {
    let sqlx_core::Error::Database(database) = error else { return false };
    database.try_downcast_ref::<PgDatabaseError>().is_some_and(|error| matches!(error.code(), "55P03" | "40P01"))
}

/// Keeps the ids of records.
pub(crate) const REMEMBER: &str = "/* compaction.remember */ INSERT INTO synchrotron.compacted_records \
    (id, server_ingest_id, user_id, content_hash, position_clock) \
    SELECT id, server_ingest_id, user_id, content_hash, position_clock \
    FROM synchrotron.action_records WHERE id = ANY($1)";

/// Deletes the effects of records.
pub(crate) const DELETE_ROWS: &str =
    "/* compaction.delete_rows */ DELETE FROM synchrotron.action_modified_rows WHERE action_id = ANY($1)";

/// Deletes what says in which audiences records have rows.
pub(crate) const DELETE_AUDIENCES: &str = "/* compaction.delete_audiences */ DELETE FROM synchrotron.action_audiences a \
    USING synchrotron.action_records r WHERE r.id = ANY($1) AND a.server_ingest_id = r.server_ingest_id";

/// Deletes records.
pub(crate) const DELETE: &str = "/* compaction.delete */ DELETE FROM synchrotron.action_records WHERE id = ANY($1)";
