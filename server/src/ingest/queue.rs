//! Where uploads wait for a transaction, and for their outcomes.
//!
//! Place in the journey: first hop of ingest. A worker that is free takes what is there, and while it works the next group
//! gathers in [`line`](super::line). So an upload alone is as quick as it can be, and many are taken together.
//!
//! # Invariants
//! - Every upload gets one outcome, unless its caller has left. One whose caller has left is decided all the same.
//! - A group has one upload of a device at most; of several, the later wait.
//! - What holds up one upload, such as a row that a long transaction has locked, holds up a worker and the others of its
//!   group for a moment only: then each is tried alone, beside the workers, and only one that is held up again waits for as
//!   long as that may take ([`alone`](super::alone)).
//! - A user that sends too much is told to come back, and keeps nobody else waiting.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use synchrotron_core::model::UserId;
use synchrotron_core::wire::{Outcome, UploadBatch};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::alone::Alone;
use super::line::{Company, Line, Waiting};
use super::{Ingest, RETRY_AFTER_MS, Upload};
use crate::limits::UserLimits;
use crate::outbox::Fresh;
use crate::pg::words;

/// The uploads that wait, and the workers that take them. Dropped, it takes nothing more; what is under way is rolled back, or
/// committed without being told, and is told when it comes again.
#[derive(Debug)]
pub(crate) struct IngestQueue {
    waiting: mpsc::Sender<Waiting>,
    limits: UserLimits,
    _workers: JoinSet<()>,
}

impl IngestQueue {
    /// Begins to work.
    pub(crate) fn start(ingest: Ingest) -> Self {
        let bounds = ingest.settings.uploads;
        let (waiting, receiver) = mpsc::channel(bounds.waiting_max);
        let worker = Worker {
            ingest: Arc::new(ingest),
            line: Arc::new(tokio::sync::Mutex::new(Line::of(receiver))),
            company: Arc::new(Company::none()),
            alone: Arc::new(Alone::new(bounds.alone_max)),
        };
        let mut workers = JoinSet::new();
        for _worker in 0..bounds.workers {
            workers.spawn(worker.clone().work());
        }
        let limits = UserLimits::new(bounds.waiting_per_user_max, bounds.records_per_second_per_user);
        Self { waiting, limits, _workers: workers }
    }

    /// Waits for the outcome of an upload.
    ///
    /// # Panics
    /// If working on this upload alone panicked: a carrier that counts deliveries gives it up some day.
    pub(crate) async fn upload(&self, user_id: &UserId, batch: UploadBatch) -> Outcome {
        let share = match self.limits.admit(user_id, batch.records.len()) {
            Ok(share) => share,
            Err(after) => return retry(after),
        };
        let (answer, outcome) = oneshot::channel();
        let upload = Upload { user_id: user_id.clone(), batch };
        if self.waiting.try_send(Waiting { upload, answer, _share: share }).is_err() {
            tracing::warn!("too many uploads wait");
            return Outcome::Retry { after_ms: RETRY_AFTER_MS };
        }
        outcome.await.expect("BUG: working on this upload panicked")
    }
}

fn retry(after: Duration) -> Outcome {
    Outcome::Retry { after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1) }
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    pub(super) ingest: Arc<Ingest>,
    line: Arc<tokio::sync::Mutex<Line>>,
    company: Arc<Company>,
    pub(super) alone: Arc<Alone>,
}

impl Worker {
    async fn work(self) {
        let bounds = self.ingest.settings.uploads;
        loop {
            let mut line = self.line.lock().await;
            let group = line.next(bounds.group_uploads_max, bounds.group_records_max, &self.company).await;
            drop(line);
            if group.is_empty() {
                return;
            }
            let (uploads, began) = (group.len(), Instant::now());
            let taken = self.take(group, bounds.group_lock_within, is_worth_another_try).await;
            self.company.answered(uploads, began);
            if let Err(group) = taken {
                self.try_each_alone(group);
            }
        }
    }

    /// Decides a group and tells the outcomes. A group that met trouble for which another try is worth it, or whose
    /// work panicked, is given back.
    pub(super) async fn take(
        &self,
        group: Vec<Waiting>,
        lock_within: Duration,
        again: fn(&sqlx_core::Error, usize) -> bool,
    ) -> Result<(), Vec<Waiting>> {
        let uploads: Vec<&Upload> = group.iter().map(|waiting| &waiting.upload).collect();
        let committing = AssertUnwindSafe(self.ingest.commit(&uploads, lock_within)).catch_unwind();
        let (outcomes, slices) = match committing.await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) if again(&error, group.len()) => {
                tracing::debug!(error = words(&error), uploads = group.len(), "ingest.alone");
                return Err(group);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = words(&error), uploads = group.len(), "ingest.retry");
                (vec![Outcome::Retry { after_ms: RETRY_AFTER_MS }; group.len()], Fresh::new())
            }
            Err(_) => {
                tracing::error!(uploads = group.len(), "work on uploads panicked");
                return Err(group);
            }
        };
        for (waiting, outcome) in group.into_iter().zip(outcomes) {
            // Whoever asked may have left.
            let _told = waiting.answer.send(outcome);
        }
        // Last, so that it is done first: the runtime goes on with the task that was woken last, and others wait for the slices.
        if !slices.is_empty() {
            self.ingest.announcer.tell(slices);
        }
        Ok(())
    }
}

/// Whether uploads that met this together are worth trying alone: one may have waited for a lock that somebody holds for
/// long, or be a riddle to Postgres. When Postgres itself is in trouble, trying each alone would only take longer.
pub(super) fn is_worth_another_try(error: &sqlx_core::Error, uploads: usize) -> bool {
    match error {
        sqlx_core::Error::Database(error) => match error.code().as_deref() {
            // lock_not_available
            Some("55P03") => true,
            // insufficient resources, operator intervention, connection exception
            Some(code) => uploads > 1 && !["53", "57", "08"].contains(&code.get(..2).unwrap_or_default()),
            None => false,
        },
        sqlx_core::Error::Decode(_) | sqlx_core::Error::RowNotFound => uploads > 1,
        _ => false,
    }
}
