//! One snapshot: a transaction that stands still, and the chunks that are read from it one after the other.
//!
//! # Invariants
//! - All chunks come from one consistent read, under the user's Row Level Security.
//! - The newest chunk is kept: who did not get it asks for it again.
//! - A chunk is no larger than the bound, or has one row, or the header alone.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use sqlx_core::transaction::Transaction;
use sqlx_postgres::{PgPool, Postgres};
use synchrotron_core::model::{AudienceKey, SnapshotId, UserId};
use synchrotron_core::wire::{self, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRequest, SnapshotRow};
use tokio::sync::OwnedSemaphorePermit;

use super::header;
use super::rows::Rows;
use crate::limits::Share;
use crate::materialize::{Catalogue, FORMS};
use crate::pg::{Acting, Actor, query};
use crate::read::{self, ReadError};
use crate::settings::Settings;

/// What a chunk holds beside header and rows, at most.
const ENVELOPE_BYTES: usize = 256;

/// A snapshot that a device takes.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The chunk that was read last.
    kept: SnapshotChunk,
    /// Where the rest comes from; `None` when nothing is left.
    source: Option<Source>,
    chunk_bytes_max: usize,
}

#[derive(Debug)]
struct Source {
    tx: Transaction<'static, Postgres>,
    rows: Rows,
    /// Read, and in no chunk yet.
    ready: VecDeque<(SnapshotRow, usize)>,
    /// Whether nothing comes after what is ready.
    ended: bool,
    _room: Room,
}

/// The room that a snapshot takes from before it begins until it has ended: its user's, and that of all.
pub(super) type Room = (Share, OwnedSemaphorePermit);

impl Chunks {
    /// Begins the consistent read and reads its first chunk.
    pub(super) async fn begin(
        pool: &PgPool,
        settings: &Settings,
        catalogue: &Arc<Catalogue>,
        user_id: &UserId,
        request: &SnapshotRequest,
        (snapshot_id, room): (SnapshotId, Room),
    ) -> Result<Self, ReadError> {
        let mut tx = read::begin(pool).await?;
        read::admit(&mut tx, user_id, request.client_id, request.epoch).await?;
        let mut audiences = header::audiences(&mut tx, user_id, &request.audiences).await?;
        let known = header::known(&mut tx, user_id, &request.ids).await?;
        // From here on, the transaction acts as the user to its end.
        Actor::introduce(&mut tx, user_id, &settings.app_role).act_as(Acting::User).await?;
        query(FORMS).execute(&mut *tx).await?;
        header::count(&mut tx, catalogue, &mut audiences).await?;
        let rows = Rows::new(Arc::clone(catalogue), audiences.iter().map(|audience| &audience.audience_key));
        let header = SnapshotHeader { audiences, known };
        let spent = wire::encode(&header).len();
        let position = SnapshotPosition { snapshot_id, chunk: 0 };
        let mut chunks = Self {
            kept: SnapshotChunk { position, header: Some(header), rows: Vec::new(), last: false },
            source: Some(Source { tx, rows, ready: VecDeque::new(), ended: false, _room: room }),
            chunk_bytes_max: settings.snapshots.chunk_bytes_max,
        };
        chunks.fill(spent).await?;
        Ok(chunks)
    }

    /// This chunk, if it is the newest or the one after; nothing if it is neither.
    pub(super) async fn chunk(&mut self, chunk: u32) -> Result<Option<SnapshotChunk>, sqlx_core::Error> {
        let position = self.kept.position;
        if chunk == position.chunk {
            return Ok(Some(self.kept.clone()));
        }
        if self.source.is_none() || Some(chunk) != position.chunk.checked_add(1) {
            return Ok(None);
        }
        let position = SnapshotPosition { chunk, ..position };
        self.kept = SnapshotChunk { position, header: None, rows: Vec::new(), last: false };
        self.fill(0).await?;
        Ok(Some(self.kept.clone()))
    }

    pub(super) const fn kept(&self) -> &SnapshotChunk {
        &self.kept
    }

    /// The audiences of its header.
    pub(super) fn audiences(&self) -> BTreeSet<AudienceKey> {
        let header = self.kept.header.iter();
        header.flat_map(|header| &header.audiences).map(|audience| audience.audience_key.clone()).collect()
    }

    /// Fills the chunk that is kept, and lets the connection go when there is no more.
    async fn fill(&mut self, spent: usize) -> Result<(), sqlx_core::Error> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let mut bytes = spent + ENVELOPE_BYTES;
        loop {
            if source.ready.is_empty() && !source.ended {
                source.ready = source.rows.next(&mut source.tx).await?.into();
                source.ended = source.ready.is_empty();
            }
            let Some((_, more)) = source.ready.front() else { break };
            bytes += more;
            let begun = self.kept.header.is_some() || !self.kept.rows.is_empty();
            if bytes > self.chunk_bytes_max && begun {
                return Ok(());
            }
            self.kept.rows.extend(source.ready.pop_front().map(|(row, _)| row));
        }
        self.kept.last = true;
        let ended = self.source.take();
        if let Some(Source { tx, .. }) = ended {
            tx.commit().await?;
        }
        Ok(())
    }
}
