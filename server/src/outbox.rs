//! Committed, not yet published slices.
//!
//! Place in the journey: between `ingest`, which writes the outbox in its transaction, and a carrier. Any process may
//! publish what any other committed; a slice that is published twice is dropped by its readers.
//!
//! # Invariants
//! - Slices of one audience come in commit order, each `prev` the `through` before it.

use sqlx_core::row::Row;
use sqlx_postgres::PgPool;
use synchrotron_core::wire::Slice;

use crate::ingest::read_epoch;
use crate::pg::query;
use crate::slices;

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
    let mut unpublished = Vec::with_capacity(waiting.len());
    for row in &waiting {
        let (id, audience): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        let slice = slices::read(&mut conn, epoch, &audience, row.try_get(2)?, row.try_get(3)?).await?;
        unpublished.push((OutboxId(id), slice));
    }
    Ok(unpublished)
}

/// Forgets slices.
pub(crate) async fn forget(pool: &PgPool, ids: &[OutboxId]) -> Result<(), sqlx_core::Error> {
    query("/* outbox.forget */ DELETE FROM synchrotron.outbox WHERE id = ANY($1)")
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map(drop)
}
