//! Snapshots as the rules' devices take them.

use std::collections::BTreeMap;

use super::answered;
use super::device::Device;
use crate::model::{ActionId, AudienceKey, Columns, Cursors, RowKey, RowsDigest};
use crate::network::NetworkError;
use crate::wire::{
    AudienceDigest, DigestRequest, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRequest, SnapshotRow,
};

/// A whole snapshot.
pub(super) struct Taken {
    pub(super) header: SnapshotHeader,
    pub(super) rows: Vec<SnapshotRow>,
    pub(super) chunks: u32,
}

impl Taken {
    /// All chunks of a new one.
    pub(super) async fn whole(device: &Device, audiences: &[AudienceKey]) -> Self {
        let first = device.first_chunk(audiences, &[]).await.expect("a snapshot");
        Self::rest(device, first).await
    }

    /// All chunks after the first.
    pub(super) async fn rest(device: &Device, first: SnapshotChunk) -> Self {
        assert_eq!(first.position.chunk, 0);
        let header = first.header.clone().expect("the first chunk has a header");
        let mut taken = Self { header, rows: Vec::new(), chunks: 0 };
        let mut chunk = first;
        loop {
            taken.chunks += 1;
            taken.rows.extend(chunk.rows);
            if chunk.last {
                return taken;
            }
            let next = SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position };
            chunk = device.chunk_at(next).await.expect("the next chunk");
            assert_eq!(chunk.position, next);
        }
    }

    /// Its rows by key.
    pub(super) fn rows(&self) -> BTreeMap<RowKey, Columns> {
        by_key(self.rows.iter().map(|row| (key_of(row), row.columns.clone())))
    }

    /// Where a fetch goes on.
    pub(super) fn cursors(&self) -> Cursors {
        self.header.audiences.iter().map(|told| (told.audience_key.clone(), told.cursor)).collect()
    }

    /// The digest of its rows of one audience.
    pub(super) fn digest(&self, audience: &AudienceKey) -> RowsDigest {
        let mut digest = RowsDigest::default();
        for row in self.rows.iter().filter(|row| row.audience_key == *audience) {
            digest.add(&key_of(row), &row.columns);
        }
        digest
    }
}

/// Rows by key; no key may come twice.
fn by_key<C>(rows: impl Iterator<Item = (RowKey, C)>) -> BTreeMap<RowKey, C> {
    let mut map = BTreeMap::new();
    for (key, columns) in rows {
        let shown = format!("{key:?}");
        assert!(map.insert(key, columns).is_none(), "{shown} came twice");
    }
    map
}

fn key_of(row: &SnapshotRow) -> RowKey {
    RowKey { table: row.table.clone(), row_id: row.row_id.clone() }
}

impl Device {
    /// Begins a snapshot.
    pub(super) async fn first_chunk(
        &self,
        audiences: &[AudienceKey],
        ids: &[ActionId],
    ) -> Result<SnapshotChunk, NetworkError> {
        self.ask(SnapshotRequest { ids: ids.to_vec(), ..self.request(audiences.to_vec()) }).await
    }

    /// Asks for a chunk of a snapshot that was begun.
    pub(super) async fn chunk_at(&self, position: SnapshotPosition) -> Result<SnapshotChunk, NetworkError> {
        self.ask(SnapshotRequest { resume: Some(position), ..self.request(Vec::new()) }).await
    }

    /// The digests of audiences.
    pub(super) async fn digests(
        &self,
        audiences: &[AudienceKey],
    ) -> Result<BTreeMap<AudienceKey, AudienceDigest>, NetworkError> {
        let (client_id, epoch) = (self.client_id, self.session.epoch);
        let request = DigestRequest { client_id, epoch, audiences: audiences.to_vec() };
        let reply = answered("digest", || self.network.digest(&request)).await?;
        assert_eq!(reply.epoch, epoch);
        Ok(reply.audiences)
    }

    async fn ask(&self, request: SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        answered("snapshot", || self.network.snapshot(&request)).await
    }

    fn request(&self, audiences: Vec<AudienceKey>) -> SnapshotRequest {
        let (client_id, epoch) = (self.client_id, self.session.epoch);
        SnapshotRequest { client_id, epoch, audiences, ids: Vec::new(), resume: None }
    }
}
