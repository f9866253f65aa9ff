//! What carriers publish: the slices of commits, of plain SQL writes, and of the past.
//!
//! Place in the journey: between a commit and the publishers of [`api`](crate::api). The outbox holds what is committed and not
//! yet published, of all processes; what this process commits is told at once, besides.

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::wire::{Fault, Slice};
use tokio::sync::{broadcast, watch};

use super::{Fresh, Inner, OutboxId, Service};
use crate::slices::Past;
use crate::trouble::unavailable;
use crate::{capture, outbox};

impl Service {
    /// Publishes a batch of committed plain SQL writes to tracked tables; returns how many row changes it was made of. None
    /// are left, or another server is publishing them, if there were none. Any number of processes may call this.
    ///
    /// # Errors
    /// [`Unavailable`](synchrotron_core::wire::FaultCode::Unavailable): everything is as it was.
    pub async fn pick_up_sql_writes(&self) -> Result<usize, Fault> {
        let Inner { pool, settings, catalogue, committed, announcer, .. } = &*self.inner;
        let picked = capture::pick_up(pool, settings, catalogue).await;
        let count = picked.map_err(|error| unavailable("sql writes", &error))?;
        if count > 0 {
            committed.send_modify(|count| *count += 1);
            announcer.tell(Fresh::new());
        }
        Ok(count)
    }

    /// The oldest slices that are committed and not yet marked as published, of any process.
    ///
    /// # Errors
    /// [`Unavailable`](synchrotron_core::wire::FaultCode::Unavailable).
    pub async fn unpublished_slices(&self, limit: usize) -> Result<Vec<(OutboxId, Slice)>, Fault> {
        outbox::unpublished(&self.inner.pool, limit).await.map_err(|error| unavailable("outbox", &error))
    }

    /// Forgets slices that a carrier has taken.
    ///
    /// # Errors
    /// [`Unavailable`](synchrotron_core::wire::FaultCode::Unavailable).
    pub async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault> {
        outbox::forget(&self.inner.pool, ids).await.map_err(|error| unavailable("outbox", &error))
    }

    /// Slices of the newest part of the log that is as long as `newest`, or of all of it; for carriers that lost theirs.
    pub(crate) async fn past_slices(&self, newest: Option<Duration>) -> Result<Past, Fault> {
        Past::open(&self.inner.pool, newest).await.map_err(|error| unavailable("past slices", &error))
    }

    /// The next of them; `None` at the end.
    pub(crate) async fn next_past_slices(&self, past: &mut Past) -> Result<Option<Vec<Slice>>, Fault> {
        past.next().await.map_err(|error| unavailable("past slices", &error))
    }

    /// Counts this process's commits: changes after each, so that a publisher can act at once.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.inner.committed.subscribe()
    }

    /// The slices of this process's commits, each as soon as it is committed, so that a publisher need not read it first;
    /// none when there are others in the outbox. Whoever misses some finds them by [`Self::unpublished_slices`].
    #[must_use]
    pub fn fresh_slices(&self) -> broadcast::Receiver<Arc<Fresh>> {
        self.inner.announcer.listen()
    }
}
