//! Committed, not yet published slices.
//!
//! Place in the journey: between `ingest`, which writes the outbox in its transaction, and a carrier. Any process may
//! publish what any other committed; a slice that is published twice is dropped by its readers.
//!
//! # Invariants
//! - Slices of one audience come in commit order, each `prev` the `through` before it.
//! - A slice has all its records, or none: then its readers fetch. None is left of one that was compacted in part.

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgPool, PgRow};
use synchrotron_core::model::{AudienceKey, Cursor, Epoch};
use synchrotron_core::wire::Slice;

use crate::ingest::read_epoch;
use crate::pg::{query, read_log};

/// Names one slice that waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(i64);

/// The oldest slices that wait, at most `limit`.
pub(crate) async fn unpublished(pool: &PgPool, limit: usize) -> Result<Vec<(OutboxId, Slice)>, sqlx_core::Error> {
    let mut conn = pool.acquire().await?;
    let epoch = read_epoch(&mut conn).await?;
    let waiting =
        query("/* outbox.next */ SELECT id, audience_key, prev, through FROM synchrotron.outbox ORDER BY id LIMIT $1")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
    let mut slices = Vec::with_capacity(waiting.len());
    for row in &waiting {
        slices.push((OutboxId(row.try_get(0)?), read_slice(&mut conn, epoch, row).await?));
    }
    Ok(slices)
}

async fn read_slice(conn: &mut PgConnection, epoch: Epoch, row: &PgRow) -> Result<Slice, sqlx_core::Error> {
    let (key, prev, through): (String, i64, i64) = (row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
    let numbers = query(SLICE).bind(&key).bind(prev).bind(through).fetch_all(&mut *conn).await?;
    let numbers = numbers.iter().map(|row| row.try_get(0)).collect::<Result<Vec<i64>, _>>()?;
    let mut records = read_log(conn, &numbers, std::slice::from_ref(&key)).await?;
    // Asked last: whatever was compacted by now was so before, or was read.
    let cut = query("/* outbox.cut */ SELECT retained > $2 FROM synchrotron.audience_heads WHERE audience_key = $1")
        .bind(&key)
        .bind(prev)
        .fetch_optional(conn)
        .await?;
    if cut.is_some_and(|row| row.get(0)) {
        records.clear();
    }
    let audience_key = AudienceKey::new(key).map_err(|error| sqlx_core::Error::Decode(Box::new(error)))?;
    Ok(Slice { epoch, audience_key, prev: Cursor::new(prev), through: Cursor::new(through), records })
}

/// Forgets slices.
pub(crate) async fn forget(pool: &PgPool, ids: &[OutboxId]) -> Result<(), sqlx_core::Error> {
    query("/* outbox.forget */ DELETE FROM synchrotron.outbox WHERE id = ANY($1)")
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map(drop)
}

/// The records of one slice.
pub(crate) const SLICE: &str = "/* outbox.slice */ SELECT server_ingest_id FROM synchrotron.action_audiences \
    WHERE audience_key = $1 AND server_ingest_id > $2 AND server_ingest_id <= $3 ORDER BY server_ingest_id";
