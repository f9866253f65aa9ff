//! How much the log holds, and what waits to be published.

use serde::Serialize;
use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::Epoch;

use crate::ingest::read_epoch;
use crate::pg::query;

/// What the log holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogStatus {
    /// The id of this history.
    pub epoch: Epoch,
    /// The greatest server_ingest_id that was ever drawn.
    pub server_ingest_id: i64,
    /// How many audiences there are, by Postgres's estimate; `None` if it never looked.
    pub audiences: Option<i64>,
    /// How many records the log holds, by Postgres's estimate.
    pub records: Option<i64>,
    /// How many modified rows it holds, by Postgres's estimate.
    pub modified_rows: Option<i64>,
    /// The age of its oldest record, in seconds.
    pub oldest_record_seconds: Option<i64>,
    /// What waits to be published.
    pub outbox: OutboxStatus,
}

/// What is committed and waits to be published.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OutboxStatus {
    /// How many slices wait, counted up to 10,000.
    pub slices: i64,
    /// How long ago the oldest of them was committed, in seconds.
    pub oldest_seconds: Option<i64>,
}

/// Reads it all.
pub(super) async fn read(conn: &mut PgConnection) -> Result<LogStatus, sqlx_core::Error> {
    let epoch = read_epoch(conn).await?;
    let drawn = query(
        "/* status.drawn */ SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM synchrotron.server_ingest_ids",
    );
    let server_ingest_id = drawn.fetch_one(&mut *conn).await?.try_get(0)?;
    let oldest = query(OLDEST).fetch_optional(&mut *conn).await?;
    let slices = query(OUTBOX).fetch_one(&mut *conn).await?.try_get(0)?;
    let lag = query(LAG).fetch_optional(&mut *conn).await?;
    let seconds = |row: Option<PgRow>| row.map(|row| row.try_get(0)).transpose();
    Ok(LogStatus {
        epoch,
        server_ingest_id,
        audiences: estimate(conn, "synchrotron.audience_heads").await?,
        records: estimate(conn, "synchrotron.action_records").await?,
        modified_rows: estimate(conn, "synchrotron.action_modified_rows").await?,
        oldest_record_seconds: seconds(oldest)?,
        outbox: OutboxStatus { slices, oldest_seconds: seconds(lag)? },
    })
}

async fn estimate(conn: &mut PgConnection, table: &str) -> Result<Option<i64>, sqlx_core::Error> {
    let row = query(
        "/* status.estimate */ SELECT CASE WHEN reltuples >= 0 THEN reltuples::bigint END \
         FROM pg_catalog.pg_class WHERE oid = to_regclass($1)",
    )
    .bind(table)
    .fetch_one(conn)
    .await?;
    row.try_get(0)
}

/// The age of the oldest record.
pub(crate) const OLDEST: &str = "/* status.oldest */ SELECT extract(epoch FROM now() - created_at)::bigint \
    FROM synchrotron.action_records ORDER BY server_ingest_id LIMIT 1";

/// How many slices wait, up to a bound.
pub(crate) const OUTBOX: &str =
    "/* status.outbox */ SELECT count(*) FROM (SELECT FROM synchrotron.outbox ORDER BY id LIMIT 10000) waiting";

/// How long the first slice that waits has waited.
pub(crate) const LAG: &str = "/* status.lag */ SELECT extract(epoch FROM now() - created_at)::bigint \
    FROM synchrotron.outbox ORDER BY id LIMIT 1";
