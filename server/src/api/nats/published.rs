//! Slices that the stream has, and the outbox still.
//!
//! Place in the journey: after [`publish`](super::publish). They leave the outbox together: a statement for each commit would
//! keep the next one's slices waiting, and a slice that is published twice harms nobody.

use std::time::Duration;

use tokio::time::Instant;

use super::{Api, NatsApiError};
use crate::service::OutboxId;

/// So many leave at once.
const TOGETHER_MAX: usize = 64;
/// How long they stay there at most, for others to leave with them.
const GATHERED_FOR: Duration = Duration::from_millis(20);

/// Which they are.
#[derive(Debug, Default)]
pub(super) struct Published {
    ids: Vec<OutboxId>,
    /// Since when there are any.
    since: Option<Instant>,
}

impl Published {
    /// One more.
    pub(super) fn note(&mut self, id: OutboxId) {
        self.since.get_or_insert_with(Instant::now);
        self.ids.push(id);
    }

    /// Waits until they are to leave the outbox.
    pub(super) async fn due(&self) {
        match self.since {
            Some(_) if self.ids.len() >= TOGETHER_MAX => {}
            Some(since) => tokio::time::sleep_until(since + GATHERED_FOR).await,
            None => std::future::pending().await,
        }
    }

    /// Takes them out of the outbox.
    pub(super) async fn forget(&mut self, api: &Api) -> Result<(), NatsApiError> {
        if self.since.take().is_some() {
            tracing::debug!(count = self.ids.len(), "slices are published");
            api.service.mark_published(&std::mem::take(&mut self.ids)).await?;
        }
        Ok(())
    }
}
