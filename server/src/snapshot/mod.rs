//! Audiences → their rows as they are, in chunks of one consistent read; or a digest of them.
//!
//! Place in the journey: beside it. A device takes a snapshot of what it gains, of what was compacted past its cursor, and
//! of what got a late arrival beneath its floor; afterwards it goes on by `fetch` from the header's cursors.
//!
//! # Invariants
//! - Rows and cursors are of one moment: the rows are the fold of everything through the cursors, and of nothing else.
//! - Only rows of the user's audiences, by the query and once more by policy; who leaves an audience gets no further
//!   chunk of it.
//! - Reads never keep uploads waiting: they have connections of their own, and take no locks.
//! - A request that is given up half way loses nothing: the chunk is read to its end, and kept.
//!
//! A snapshot lives in the process that began it, which its id names: where there is NATS, another process hands the request
//! on, whichever way it came. Asked elsewhere, or too late, it is [`SnapshotGone`](FaultCode::SnapshotGone), and the device begins another.

mod chunks;
mod digest;
mod header;
mod held;
mod process;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use sqlx_postgres::PgPool;
use synchrotron_core::model::UserId;
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, SnapshotChunk, SnapshotPosition, SnapshotRequest,
};
use tokio::sync::Semaphore;

#[cfg(test)]
pub(crate) use header::{OWN, count_of};
pub use process::ProcessId;
pub(crate) use rows::{read as read_row, rows_of};

use crate::StartError;
use crate::audiences::audiences_of;
use crate::limits::UserLimits;
use crate::materialize::Catalogue;
use crate::pg;
use crate::read::{self, ReadError};
use crate::settings::Settings;
use chunks::Chunks;
use held::{Held, Registry};

/// Everything that snapshots and digests need.
#[derive(Debug)]
pub(crate) struct Snapshots {
    /// Connections that stay with a snapshot.
    pool: PgPool,
    settings: Settings,
    catalogue: Arc<Catalogue>,
    process: ProcessId,
    held: Registry,
    room: Arc<Semaphore>,
    /// What each user has of it.
    users: UserLimits,
    digest_room: Semaphore,
}

impl Snapshots {
    /// Lets go by itself what waits for too long, for as long as it lives.
    pub(crate) fn start(settings: &Settings, catalogue: Arc<Catalogue>) -> Result<Arc<Self>, StartError> {
        let bounds = &settings.snapshots;
        let room = |max: u32| Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS));
        let started = Arc::new(Self {
            pool: pg::connect_later(settings)?,
            settings: settings.clone(),
            catalogue,
            process: ProcessId::new(),
            held: Registry::default(),
            room: Arc::new(room(bounds.open_max)),
            users: UserLimits::new(usize::try_from(bounds.open_per_user_max).unwrap_or(usize::MAX), None),
            digest_room: room(bounds.digests_max),
        });
        let (snapshots, every) = (Arc::downgrade(&started), sweep_every(bounds.idle_max));
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval(every);
            loop {
                ticks.tick().await;
                let Some(snapshots) = snapshots.upgrade() else { return };
                snapshots.held.sweep(&snapshots.settings.snapshots);
            }
        });
        Ok(started)
    }

    /// This process, which its snapshots are named after.
    pub(crate) const fn process(&self) -> ProcessId {
        self.process
    }

    /// How many snapshots go on.
    pub(crate) fn open_count(&self) -> usize {
        self.held.open_count()
    }

    /// The chunk that is asked for; `pool` is where short reads go.
    pub(crate) async fn chunk(
        &self,
        pool: &PgPool,
        user_id: &UserId,
        request: &SnapshotRequest,
    ) -> Result<SnapshotChunk, ReadError> {
        match request.resume {
            None => self.begin(user_id, request).await,
            Some(position) => self.resume(pool, user_id, request, position).await,
        }
    }

    async fn begin(&self, user_id: &UserId, request: &SnapshotRequest) -> Result<SnapshotChunk, ReadError> {
        let bounds = &self.settings.snapshots;
        if request.ids.len() > bounds.ids_max {
            let fact = format!("{} ids in one request, at most {} are taken", request.ids.len(), bounds.ids_max);
            return Err(Fault::new(FaultCode::TooLarge, fact).into());
        }
        self.held.sweep(bounds);
        self.held.remove_device(user_id, request.client_id);
        let share = self.users.admit(user_id, 1);
        let share = share.map_err(|_after| busy("the user's devices take as many snapshots as they may"))?;
        let place = Arc::clone(&self.room).try_acquire_owned();
        let place = place.map_err(|_| busy("too many snapshots at once"))?;
        let id = self.process.new_snapshot();
        let Self { pool, settings, catalogue, .. } = self;
        let chunks = Chunks::begin(pool, settings, catalogue, user_id, request, (id, (share, place))).await?;
        let first = chunks.kept().clone();
        let held = Held {
            user_id: user_id.clone(),
            client_id: request.client_id,
            audiences: chunks.audiences(),
            chunks: tokio::sync::Mutex::new(chunks),
        };
        self.held.insert(id, held, !first.last);
        tracing::debug!(snapshot = %id, client = %request.client_id, last = first.last, "a snapshot begins");
        Ok(first)
    }

    async fn resume(
        &self,
        pool: &PgPool,
        user_id: &UserId,
        request: &SnapshotRequest,
        position: SnapshotPosition,
    ) -> Result<SnapshotChunk, ReadError> {
        let id = position.snapshot_id;
        let gone = |fact: &str| {
            Fault::new(FaultCode::SnapshotGone, format!("snapshot {id}, chunk {}: {fact}", position.chunk))
        };
        let audiences = {
            let mut conn = pool.acquire().await?;
            read::admit(&mut conn, user_id, request.client_id, request.epoch).await?;
            audiences_of(&mut conn, user_id).await?
        };
        self.held.sweep(&self.settings.snapshots);
        let held = self.held.find(id, user_id, request.client_id).ok_or_else(|| gone("not held here"))?;
        if !held.audiences.is_subset(&audiences) {
            self.held.remove(id);
            return Err(gone("the user has left one of its audiences").into());
        }
        let mut chunks = held.chunks.lock().await;
        match chunks.chunk(position.chunk).await {
            Ok(Some(chunk)) => {
                self.held.used(id, !chunk.last);
                Ok(chunk)
            }
            Ok(None) => Err(gone("neither the newest nor the next").into()),
            Err(error) => {
                // Who knows what was read: the device begins anew.
                self.held.remove(id);
                Err(error.into())
            }
        }
    }

    /// The digests of the asked audiences that the user is in.
    pub(crate) async fn digest(&self, user_id: &UserId, request: &DigestRequest) -> Result<DigestReply, ReadError> {
        let Ok(_room) = self.digest_room.try_acquire() else {
            return Err(busy("too many digests at once").into());
        };
        digest::digest(&self.pool, &self.settings, &self.catalogue, user_id, request).await
    }
}

fn busy(fact: &'static str) -> Fault {
    Fault::new(FaultCode::Unavailable, fact)
}

/// Soon after a snapshot has waited for too long.
fn sweep_every(idle_max: Duration) -> Duration {
    (idle_max / 4).clamp(Duration::from_millis(10), Duration::from_secs(5))
}
