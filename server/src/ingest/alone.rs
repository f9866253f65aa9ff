//! Uploads that met trouble together, each tried alone: first those that nothing holds up, then the others.
//!
//! Place in the journey: after a group of the [`queue`](super::queue) that met a lock, or panicked. Which of its uploads it was
//! does not show; it may have been many, at one row.
//!
//! # Invariants
//! - Whoever has nothing to do with what is locked is tried within moments. Uploads of one audience meet the same head, so
//!   they are tried one after the other, and take one place together of those where that is done.
//! - One that meets a lock again waits for it where only such ones wait, for longer, and after all others of its audience:
//!   while it waits, it has their head.

use std::collections::BTreeSet;

use synchrotron_core::model::AudienceKey;
use tokio::sync::Semaphore;

use super::line::Waiting;
use super::queue::{Worker, is_worth_another_try};

/// Room for uploads that are tried alone.
#[derive(Debug)]
pub(super) struct Alone {
    /// For a moment.
    quick: Semaphore,
    /// For long.
    patient: Semaphore,
}

impl Alone {
    /// Room for so many at once, of each kind.
    pub(super) fn new(max: u32) -> Self {
        let room = || Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS));
        Self { quick: room(), patient: room() }
    }
}

impl Worker {
    /// Tries each alone, beside the workers.
    pub(super) fn try_each_alone(&self, group: Vec<Waiting>) {
        for neighbours in by_audience(group) {
            tokio::spawn(self.clone().try_neighbours(neighbours));
        }
    }

    async fn try_neighbours(self, neighbours: Vec<Waiting>) {
        let bounds = self.ingest.settings.uploads;
        let mut held_up = Vec::new();
        for waiting in neighbours {
            let _room = self.alone.quick.acquire().await;
            let taken = self.take(vec![waiting], bounds.group_lock_within, is_worth_another_try).await;
            held_up.extend(taken.err().into_iter().flatten());
        }
        for waiting in held_up {
            let worker = self.clone();
            tokio::spawn(async move {
                let _room = worker.alone.patient.acquire().await;
                // If it panicked again, its caller hears of it by the answer that is dropped.
                drop(worker.take(vec![waiting], bounds.lock_within, |_, _| false).await);
            });
        }
    }
}

/// Uploads with an audience in common, or with one that has one in common with both, and so on.
fn by_audience(group: Vec<Waiting>) -> Vec<Vec<Waiting>> {
    let mut parts: Vec<(BTreeSet<AudienceKey>, Vec<Waiting>)> = Vec::new();
    for waiting in group {
        let rows = waiting.upload.batch.records.iter().flat_map(|record| &record.rows);
        let mut audiences: BTreeSet<AudienceKey> = rows.map(|row| row.audience_key.clone()).collect();
        let met: Vec<_> = parts.extract_if(.., |(others, _)| !others.is_disjoint(&audiences)).collect();
        let mut neighbours = Vec::new();
        for (theirs, uploads) in met {
            audiences.extend(theirs);
            neighbours.extend(uploads);
        }
        neighbours.push(waiting);
        parts.push((audiences, neighbours));
    }
    parts.into_iter().map(|(_, neighbours)| neighbours).collect()
}
