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

use crate::pg::query;
use crate::slices::{self, Bounds};

/// Names one slice that waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(i64);

/// The oldest slices that wait, at most `limit`.
pub(crate) async fn unpublished(pool: &PgPool, limit: usize) -> Result<Vec<(OutboxId, Slice)>, sqlx_core::Error> {
    let mut conn = pool.acquire().await?;
    let waiting =
        query("/* outbox.next */ SELECT id, audience_key, prev, through FROM synchrotron.outbox ORDER BY id LIMIT $1")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
    let ids = waiting.iter().map(|row| row.try_get("id").map(OutboxId)).collect::<Result<Vec<_>, _>>()?;
    let wanted = waiting.iter().map(Bounds::of).collect::<Result<Vec<_>, _>>()?;
    let slices = slices::read(&mut conn, &wanted).await?;
    Ok(ids.into_iter().zip(slices).collect())
}

/// Forgets slices.
pub(crate) async fn forget(pool: &PgPool, ids: &[OutboxId]) -> Result<(), sqlx_core::Error> {
    query("/* outbox.forget */ DELETE FROM synchrotron.outbox WHERE id = ANY($1)")
        .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
        .execute(pool)
        .await
        .map(drop)
}
