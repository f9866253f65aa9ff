//! Where uploads wait for a transaction, and for their outcomes.
//!
//! Place in the journey: first hop of ingest. A worker that is free takes what is there, and while it works the next group
//! gathers. So an upload alone is as quick as it can be, and many are taken together. Devices that were answered together send
//! their next uploads one after the other: after a group that was large, the next one is waited for a little.
//!
//! # Invariants
//! - Every upload gets one outcome, unless its caller has left. One whose caller has left is decided all the same.
//! - A group has one upload of a device at most; of several, the later wait.
//! - What holds up one upload, such as a row that a long transaction has locked, holds up a worker and the others of its
//!   group for a moment only: then each is tried alone, beside the workers.
//! - A user that sends too much is told to come back, and keeps nobody else waiting.

use std::collections::{BTreeSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use synchrotron_core::model::{ClientId, UserId};
use synchrotron_core::wire::{Outcome, UploadBatch};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Ingest, RETRY_AFTER_MS, Upload};
use crate::limits::{Share, UserLimits};

/// An upload and who waits for its outcome.
#[derive(Debug)]
struct Waiting {
    upload: Upload,
    answer: oneshot::Sender<Outcome>,
    _share: Share,
}

/// The uploads that wait, and the workers that take them. Dropped, it takes nothing more, and what is under way is rolled
/// back.
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
            line: Arc::new(tokio::sync::Mutex::new(Line { receiver, postponed: VecDeque::new() })),
            company: Arc::new(Mutex::new(Company::of(0, Instant::now()))),
            alone: Arc::new(Semaphore::new(usize::try_from(bounds.alone_max).unwrap_or(Semaphore::MAX_PERMITS))),
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

/// Uploads in the order in which they came.
#[derive(Debug)]
struct Line {
    receiver: mpsc::Receiver<Waiting>,
    /// Those that could not be in the group before, oldest first.
    postponed: VecDeque<Waiting>,
}

/// The part of a group's time that the next one may gather.
const GATHER_PART: u32 = 8;

/// How many uploads are likely to come together, and until when they are waited for.
#[derive(Debug, Clone, Copy)]
struct Company {
    uploads: usize,
    until: Instant,
}

impl Company {
    /// As many as were answered together just now, for a small part of what that took.
    fn of(uploads: usize, began: Instant) -> Self {
        let now = Instant::now();
        Self { uploads, until: now + (now - began) / GATHER_PART }
    }

    /// Whether a group of this size is to wait for more.
    fn is_awaited(&self, uploads: usize) -> bool {
        uploads < self.uploads && Instant::now() < self.until
    }
}

impl Line {
    /// Waits for an upload, and takes those that wait beside it or come in company; none when nobody will send any more.
    async fn next(&mut self, uploads_max: usize, records_max: usize, company: &Mutex<Company>) -> Vec<Waiting> {
        let mut group = Vec::new();
        let mut devices: BTreeSet<ClientId> = BTreeSet::new();
        let mut records = 0;
        let mut again = VecDeque::new();
        while group.len() < uploads_max && records < records_max {
            let next = match self.postponed.pop_front() {
                Some(postponed) => Some(postponed),
                None if group.is_empty() && again.is_empty() => self.receiver.recv().await,
                None => match self.receiver.try_recv() {
                    Ok(waiting) => Some(waiting),
                    Err(_) => {
                        let company = *company.lock().unwrap_or_else(PoisonError::into_inner);
                        if !company.is_awaited(group.len()) {
                            break;
                        }
                        timeout_at(company.until, self.receiver.recv()).await.ok().flatten()
                    }
                },
            };
            let Some(next) = next else { break };
            if devices.insert(next.upload.batch.client_id) {
                records += next.upload.batch.records.len();
                group.push(next);
            } else {
                again.push_back(next);
            }
        }
        again.append(&mut self.postponed);
        self.postponed = again;
        group
    }
}

#[derive(Debug, Clone)]
struct Worker {
    ingest: Arc<Ingest>,
    line: Arc<tokio::sync::Mutex<Line>>,
    /// By the group that was answered last.
    company: Arc<Mutex<Company>>,
    /// Room for uploads that are tried alone.
    alone: Arc<Semaphore>,
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
            *self.company.lock().unwrap_or_else(PoisonError::into_inner) = Company::of(uploads, began);
            for waiting in taken.err().into_iter().flatten() {
                let (worker, alone) = (self.clone(), Arc::clone(&self.alone));
                tokio::spawn(async move {
                    let _room = alone.acquire_owned().await;
                    let taken = worker.take(vec![waiting], bounds.lock_within, |_, _| false).await;
                    // It panicked again, alone: its caller hears of it by the answer that is dropped.
                    drop(taken);
                });
            }
        }
    }

    /// Decides a group and tells the outcomes. A group that met trouble for which another try is worth it, or whose
    /// work panicked, is given back.
    async fn take(
        &self,
        group: Vec<Waiting>,
        lock_within: Duration,
        again: fn(&sqlx_core::Error, usize) -> bool,
    ) -> Result<(), Vec<Waiting>> {
        let uploads: Vec<&Upload> = group.iter().map(|waiting| &waiting.upload).collect();
        let committing = AssertUnwindSafe(self.ingest.commit(&uploads, lock_within)).catch_unwind();
        let outcomes = match committing.await {
            Ok(Ok(outcomes)) => outcomes,
            Ok(Err(error)) if again(&error, group.len()) => {
                tracing::debug!(error = %error, uploads = group.len(), "ingest.alone");
                return Err(group);
            }
            Ok(Err(error)) => {
                tracing::warn!(error = %error, uploads = group.len(), "ingest.retry");
                vec![Outcome::Retry { after_ms: RETRY_AFTER_MS }; group.len()]
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
        Ok(())
    }
}

/// Whether uploads that met this together are worth trying alone: one may have waited for a lock that somebody holds for
/// long, or be a riddle to Postgres. When Postgres itself is in trouble, trying each alone would only take longer.
fn is_worth_another_try(error: &sqlx_core::Error, uploads: usize) -> bool {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use synchrotron_core::model::{BatchId, Epoch};
    use uuid::Uuid;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn waiting(limits: &UserLimits, device: u128) -> Waiting {
        let user_id = UserId::new("alice").expect("ok");
        let batch = UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::nil()),
            client_id: ClientId::from_uuid(Uuid::from_u128(device)),
            epoch: Epoch::from_uuid(Uuid::nil()),
            basis: BTreeMap::new(),
            records: Vec::new(),
        };
        let share = limits.admit(&user_id, 0).expect("room");
        Waiting { upload: Upload { user_id, batch }, answer: oneshot::channel().0, _share: share }
    }

    /// How many uploads are in the group that is next when two wait, and another one comes as soon as nobody is busy.
    async fn next_of_two_and_one(company: Company) -> usize {
        let limits = UserLimits::new(100, None);
        let (sender, receiver) = mpsc::channel(10);
        for device in [1, 2] {
            sender.send(waiting(&limits, device)).await.expect("sent");
        }
        let third = waiting(&limits, 3);
        let kept = sender.clone();
        tokio::spawn(async move { sender.send(third).await.expect("sent") });
        let mut line = Line { receiver, postponed: VecDeque::new() };
        let group = line.next(10, 10, &Mutex::new(company)).await;
        drop(kept);
        group.len()
    }

    #[tokio::test]
    async fn a_group_waits_for_as_many_as_were_answered_together() {
        let until = Instant::now() + SOON;
        assert_eq!(next_of_two_and_one(Company { uploads: 3, until }).await, 3);
        // Two are as many as there were: nobody is waited for.
        assert_eq!(next_of_two_and_one(Company { uploads: 2, until }).await, 2);
    }

    #[tokio::test]
    async fn a_group_waits_no_longer_than_it_may() {
        assert_eq!(next_of_two_and_one(Company { uploads: 3, until: Instant::now() }).await, 2);
        let within = Duration::from_millis(20);
        let until = Instant::now() + within;
        assert_eq!(next_of_two_and_one(Company { uploads: 10, until }).await, 3);
        assert!(Instant::now() >= until);
        let now = Instant::now();
        let company = Company::of(5, now - GATHER_PART * SOON);
        assert!(company.until >= now + SOON && company.is_awaited(4) && !company.is_awaited(5));
    }
}
