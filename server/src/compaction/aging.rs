//! What else is over at some time: rejections, slices that nobody took, ids, images of absent rows, devices.
//!
//! Each is deleted in bounded steps, oldest first, by an index. None of it is needed for rows to be right.

use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgPool};

use super::{CompactionError, Report};
use crate::pg::query;
use crate::settings::CompactionSettings;

/// How much one statement deletes.
const STEP: i64 = 5_000;

/// Deletes everything that is over.
pub(super) async fn run(
    pool: &PgPool,
    settings: &CompactionSettings,
    report: &mut Report,
) -> Result<(), CompactionError> {
    let mut conn = pool.acquire().await?;
    report.outcomes = sweep(&mut conn, OUTCOMES, settings.outcomes_kept).await?;
    report.slices = sweep(&mut conn, SLICES, settings.outbox_kept).await?;
    // While records are kept for ever, so is whose they are.
    if settings.retention().is_some() {
        report.clients = sweep(&mut conn, CLIENTS, settings.ids_kept).await?;
        report.ids = sweep(&mut conn, IDS, settings.ids_kept).await?;
        query(ABSENT).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn sweep(conn: &mut PgConnection, sql: &'static str, kept: Duration) -> Result<u64, sqlx_core::Error> {
    let mut deleted = 0;
    loop {
        let step = query(sql).bind(kept.as_secs_f64()).bind(STEP).fetch_one(&mut *conn).await?;
        let step: i64 = step.try_get(0)?;
        deleted += step.unsigned_abs();
        if step < STEP {
            return Ok(deleted);
        }
    }
}

/// Answers older than so many seconds.
pub(crate) const OUTCOMES: &str = "/* aging.outcomes */ WITH gone AS (DELETE FROM synchrotron.upload_outcomes \
    WHERE ctid = ANY(ARRAY(SELECT ctid FROM synchrotron.upload_outcomes \
        WHERE created_at < now() - $1::float8 * interval '1 second' ORDER BY created_at LIMIT $2)) RETURNING 1) \
    SELECT count(*) FROM gone";

/// Slices older than so many seconds. The oldest come first, so nothing else is looked at.
pub(crate) const SLICES: &str = "/* aging.slices */ WITH gone AS (DELETE FROM synchrotron.outbox \
    WHERE id = ANY(ARRAY(SELECT o.id FROM (SELECT id, created_at FROM synchrotron.outbox ORDER BY id LIMIT $2) o \
        WHERE o.created_at < now() - $1::float8 * interval '1 second')) RETURNING 1) \
    SELECT count(*) FROM gone";

/// Devices that were not seen for so many seconds. One that comes at this moment renews its row, and stays.
pub(crate) const CLIENTS: &str = "/* aging.clients */ WITH gone AS (DELETE FROM synchrotron.clients \
    WHERE client_id = ANY(ARRAY(SELECT client_id FROM synchrotron.clients \
        WHERE used_at < now() - $1::float8 * interval '1 second' ORDER BY used_at LIMIT $2)) \
    AND used_at < now() - $1::float8 * interval '1 second' RETURNING 1) \
    SELECT count(*) FROM gone";

/// Ids that are remembered for so many seconds; from now on nothing at or beneath their clocks is taken.
pub(crate) const IDS: &str = "/* aging.ids */ WITH gone AS (DELETE FROM synchrotron.compacted_records \
    WHERE id = ANY(ARRAY(SELECT id FROM synchrotron.compacted_records \
        WHERE compacted_at < now() - $1::float8 * interval '1 second' ORDER BY compacted_at LIMIT $2)) \
    RETURNING position_clock), \
    raised AS (UPDATE synchrotron.server_meta \
        SET forgotten_clock = greatest(forgotten_clock, (SELECT max(position_clock) + 1 FROM gone)) \
        WHERE EXISTS (SELECT FROM gone)) \
    SELECT count(*) FROM gone";

/// Final images of absent rows where nothing is taken any more.
pub(crate) const ABSENT: &str = "/* aging.absent */ DELETE FROM synchrotron.row_images WHERE columns IS NULL AND final \
    AND position_clock < (SELECT forgotten_clock FROM synchrotron.server_meta)";
