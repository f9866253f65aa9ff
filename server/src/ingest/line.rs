//! The line in which uploads wait, and how a group is taken out of it.
//!
//! Place in the journey: within the [`queue`](super::queue). A group is whoever waits. Devices that were answered together
//! send their next uploads one after the other, and whoever took the first at once would leave the rest behind: so after a
//! group that was large, the next one is waited for a little, and after an upload that came alone nobody is.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use synchrotron_core::model::ClientId;
use synchrotron_core::wire::Outcome;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::Upload;
use crate::limits::Share;

/// An upload and who waits for its outcome.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) upload: Upload,
    pub(super) answer: oneshot::Sender<Outcome>,
    pub(super) _share: Share,
}

/// Uploads in the order in which they came.
#[derive(Debug)]
pub(super) struct Line {
    receiver: mpsc::Receiver<Waiting>,
    /// Those that could not be in the group before, oldest first.
    postponed: VecDeque<Waiting>,
}

/// The part of a group's time that the next one may gather.
const GATHER_PART: u32 = 8;

/// How many uploads are likely to come together, and until when they are waited for.
#[derive(Debug, Clone, Copy)]
struct Expected {
    uploads: usize,
    until: Instant,
}

/// What to expect after the group that was answered last, of whichever worker.
#[derive(Debug)]
pub(super) struct Company(Mutex<Expected>);

impl Company {
    /// Nobody was answered yet.
    pub(super) fn none() -> Self {
        Self(Mutex::new(Expected { uploads: 0, until: Instant::now() }))
    }

    /// So many uploads were answered together just now: as many are expected, for a small part of what that took.
    pub(super) fn answered(&self, uploads: usize, began: Instant) {
        let now = Instant::now();
        *self.expected() = Expected { uploads, until: now + (now - began) / GATHER_PART };
    }

    /// Until when a group of this size waits for more, if it does.
    fn awaited(&self, uploads: usize) -> Option<Instant> {
        let Expected { uploads: expected, until } = *self.expected();
        (uploads < expected && Instant::now() < until).then_some(until)
    }

    fn expected(&self) -> MutexGuard<'_, Expected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    pub(super) const fn of(receiver: mpsc::Receiver<Waiting>) -> Self {
        Self { receiver, postponed: VecDeque::new() }
    }

    /// Waits for an upload, and takes those that wait beside it or come in company; none when nobody will send any more.
    pub(super) async fn next(&mut self, uploads_max: usize, records_max: usize, company: &Company) -> Vec<Waiting> {
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
                    Err(_) => match company.awaited(group.len()) {
                        Some(until) => timeout_at(until, self.receiver.recv()).await.ok().flatten(),
                        None => None,
                    },
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use synchrotron_core::model::{BatchId, Epoch, UserId};
    use synchrotron_core::wire::UploadBatch;
    use uuid::Uuid;

    use super::*;
    use crate::limits::UserLimits;

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
    async fn next_of_two_and_one(company: &Company) -> usize {
        let limits = UserLimits::new(100, None);
        let (sender, receiver) = mpsc::channel(10);
        for device in [1, 2] {
            sender.send(waiting(&limits, device)).await.expect("sent");
        }
        let third = waiting(&limits, 3);
        let _kept = sender.clone();
        tokio::spawn(async move { sender.send(third).await.expect("sent") });
        Line::of(receiver).next(10, 10, company).await.len()
    }

    /// After so many that were answered together, and are expected for so long.
    fn after(uploads: usize, within: Duration) -> Company {
        let company = Company::none();
        company.answered(uploads, Instant::now() - GATHER_PART * within);
        company
    }

    #[tokio::test]
    async fn a_group_waits_for_as_many_as_were_answered_together() {
        assert_eq!(next_of_two_and_one(&after(3, SOON)).await, 3);
        // Two are as many as there were: nobody is waited for.
        assert_eq!(next_of_two_and_one(&after(2, SOON)).await, 2);
    }

    #[tokio::test]
    async fn a_group_waits_no_longer_than_it_may() {
        assert_eq!(next_of_two_and_one(&Company::none()).await, 2);
        assert_eq!(next_of_two_and_one(&after(3, Duration::ZERO)).await, 2);
        let (within, began) = (Duration::from_secs(1), Instant::now());
        assert_eq!(next_of_two_and_one(&after(10, within)).await, 3);
        assert!(began.elapsed() >= within);
    }
}
