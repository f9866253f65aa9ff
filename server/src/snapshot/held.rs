//! Which snapshots this process holds, for whom, and since when.
//!
//! # Invariants
//! - A device has one snapshot at most: beginning another ends the one before.
//! - A snapshot that waits for too long, or goes on for too long, is let go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use synchrotron_core::model::{AudienceKey, ClientId, SnapshotId, UserId};
use tokio::time::Instant;

use super::chunks::Chunks;
use crate::settings::SnapshotSettings;

/// A snapshot and whose it is.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) user_id: UserId,
    pub(super) client_id: ClientId,
    pub(super) audiences: BTreeSet<AudienceKey>,
    /// One chunk is read at a time.
    pub(super) chunks: tokio::sync::Mutex<Chunks>,
}

#[derive(Debug)]
struct Entry {
    held: Arc<Held>,
    begun: Instant,
    used: Instant,
    /// Whether its transaction goes on.
    open: bool,
}

/// All snapshots of this process.
#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<BTreeMap<SnapshotId, Entry>>,
}

impl Registry {
    /// A snapshot of this device of this user, which is in use now.
    pub(super) fn find(&self, id: SnapshotId, user_id: &UserId, client_id: ClientId) -> Option<Arc<Held>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&id)?;
        if entry.held.user_id != *user_id || entry.held.client_id != client_id {
            return None;
        }
        entry.used = Instant::now();
        Some(Arc::clone(&entry.held))
    }

    /// How many snapshots are open.
    pub(super) fn open_count(&self) -> usize {
        self.entries().values().filter(|entry| entry.open).count()
    }

    /// Holds a snapshot instead of the device's one before.
    pub(super) fn insert(&self, id: SnapshotId, held: Held, open: bool) {
        self.remove_device(&held.user_id, held.client_id);
        let now = Instant::now();
        self.entries().insert(id, Entry { held: Arc::new(held), begun: now, used: now, open });
    }

    /// A chunk was read; whether more follow.
    pub(super) fn used(&self, id: SnapshotId, open: bool) {
        if let Some(entry) = self.entries().get_mut(&id) {
            entry.used = Instant::now();
            entry.open = open;
        }
    }

    /// Lets a snapshot go. What is being read of it is read to its end.
    pub(super) fn remove(&self, id: SnapshotId) {
        let removed = self.entries().remove(&id);
        drop(removed);
    }

    /// Lets the snapshot of a device go, if it has one.
    pub(super) fn remove_device(&self, user_id: &UserId, client_id: ClientId) {
        self.retain(|entry| entry.held.client_id != client_id || entry.held.user_id != *user_id);
    }

    /// Lets those go that wait or go on for too long; and finished ones, oldest first, if there are more than a few.
    pub(super) fn sweep(&self, bounds: &SnapshotSettings) {
        let now = Instant::now();
        let within = |since: Instant, max: Duration| now.duration_since(since) < max;
        self.retain(|entry| within(entry.used, bounds.idle_max) && within(entry.begun, bounds.age_max));
        let finished_max = usize::try_from(bounds.open_max).unwrap_or(usize::MAX);
        let mut finished: Vec<Instant> =
            self.entries().values().filter(|entry| !entry.open).map(|entry| entry.used).collect();
        if let Some(over) = finished.len().checked_sub(finished_max).filter(|over| *over > 0) {
            finished.sort_unstable();
            let oldest_kept = finished[over];
            self.retain(|entry| entry.open || entry.used >= oldest_kept);
        }
    }

    fn retain(&self, keep: impl Fn(&Entry) -> bool) {
        let mut entries = self.entries();
        let gone: Vec<SnapshotId> = entries.iter().filter(|(_, entry)| !keep(entry)).map(|(id, _)| *id).collect();
        for id in gone {
            tracing::debug!(snapshot = %id, "a snapshot is let go");
            entries.remove(&id);
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<SnapshotId, Entry>> {
        self.entries.lock().expect("BUG: nothing panics while it holds the registry")
    }
}
