//! Committed, not yet published slices.
//!
//! Place in the journey: between `ingest`, which writes the outbox in its transaction, and a carrier. Any process may
//! publish what any other committed; a slice that is published twice is dropped by its readers.
//!
//! # Invariants
//! - Slices of one audience come in commit order, each `prev` the `through` before it.
//! - What is announced within the process is in the outbox, too: an announcement that nobody hears costs time, no slice.

use std::sync::Arc;

use sqlx_core::row::Row;
use sqlx_postgres::{PgPool, PgRow};
use synchrotron_core::wire::Slice;
use tokio::sync::broadcast;

use crate::pg::query;
use crate::slices::{self, Bounds};

/// So many commits may wait for a publisher; one that is slower reads the outbox.
const ANNOUNCED_MAX: usize = 64;

/// Names one slice that waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(i64);

impl OutboxId {
    /// From a row of the outbox.
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx_core::Error> {
        row.try_get("id").map(Self)
    }

    /// Any.
    #[cfg(test)]
    pub(crate) const fn for_test(id: i64) -> Self {
        Self(id)
    }
}

/// Slices that were committed a moment ago, in the order of the outbox.
pub type Fresh = Vec<(OutboxId, Slice)>;

/// Tells the publishers of this process of commits.
#[derive(Debug, Clone)]
pub(crate) struct Announcer(broadcast::Sender<Arc<Fresh>>);

impl Announcer {
    /// Nobody listens yet.
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(ANNOUNCED_MAX))
    }

    /// Listens from now on.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Arc<Fresh>> {
        self.0.subscribe()
    }

    /// Whether anybody listens.
    pub(crate) fn is_heard(&self) -> bool {
        self.0.receiver_count() > 0
    }

    /// Tells of a commit; without slices, that there are some in the outbox.
    pub(crate) fn tell(&self, slices: Fresh) {
        // A server without NATS has no publisher.
        drop(self.0.send(Arc::new(slices)));
    }
}

/// The oldest slices that wait, at most `limit`.
pub(crate) async fn unpublished(pool: &PgPool, limit: usize) -> Result<Vec<(OutboxId, Slice)>, sqlx_core::Error> {
    let mut conn = pool.acquire().await?;
    let waiting =
        query("/* outbox.next */ SELECT id, audience_key, prev, through FROM synchrotron.outbox ORDER BY id LIMIT $1")
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
    let ids = waiting.iter().map(OutboxId::of).collect::<Result<Vec<_>, _>>()?;
    let wanted = waiting.iter().map(Bounds::of).collect::<Result<Vec<_>, _>>()?;
    let slices = slices::read(&mut conn, &wanted).await?;
    Ok(ids.into_iter().zip(slices).collect())
}

/// Forgets slices, without waiting for the disk: one that a crash brings back is published twice.
pub(crate) async fn forget(pool: &PgPool, ids: &[OutboxId]) -> Result<(), sqlx_core::Error> {
    query(
        "/* outbox.forget */ DELETE FROM synchrotron.outbox USING \
         (SELECT set_config('synchronous_commit', 'off', true)) AS lazily WHERE id = ANY($1)",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .execute(pool)
    .await
    .map(drop)
}
