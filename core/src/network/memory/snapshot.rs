//! Snapshots and digests: the rows of whole audiences, read at once and handed out in chunks.
//!
//! Place in the journey: beside [`super::page`]. A snapshot is held until newer ones push it out.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::history::History;
use crate::model::{AudienceKey, ClientId, RowsDigest, SnapshotId, UserId};
use crate::wire::{
    AudienceDigest, Fault, FaultCode, SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition,
    SnapshotRequest, SnapshotRow,
};

/// How many snapshots are held at once.
const HELD_MAX: usize = 64;
const ROWS_MAX: usize = 500;

/// The snapshots that devices are taking.
#[derive(Debug)]
pub(super) struct Snapshots {
    pub(super) rows_max: usize,
    /// How many were ever begun; names the next one.
    begun: u128,
    held: BTreeMap<SnapshotId, (ClientId, Vec<SnapshotChunk>)>,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { rows_max: ROWS_MAX, begun: 0, held: BTreeMap::new() }
    }
}

impl Snapshots {
    pub(super) fn expire(&mut self) {
        self.held.clear();
    }

    pub(super) fn chunk(
        &mut self,
        history: &History,
        (user, visible): (&UserId, &BTreeSet<AudienceKey>),
        request: &SnapshotRequest,
    ) -> Result<SnapshotChunk, Fault> {
        let position = match request.resume {
            Some(position) => position,
            None => SnapshotPosition { snapshot_id: self.begin(history, (user, visible), request), chunk: 0 },
        };
        let gone = || Fault::new(FaultCode::SnapshotGone, format!("{position:?} is not held"));
        let (of, chunks) = self.held.get(&position.snapshot_id).ok_or_else(gone)?;
        // A membership that ends, ends the snapshot: no further row of it leaves.
        let header = chunks.first().and_then(|first| first.header.as_ref());
        let left =
            header.is_some_and(|of| of.audiences.iter().any(|audience| !visible.contains(&audience.audience_key)));
        if *of != request.client_id || left {
            return Err(gone());
        }
        let index = usize::try_from(position.chunk).expect("BUG: u32 fits into usize");
        chunks.get(index).cloned().ok_or_else(gone)
    }

    fn begin(
        &mut self,
        history: &History,
        (user, visible): (&UserId, &BTreeSet<AudienceKey>),
        request: &SnapshotRequest,
    ) -> SnapshotId {
        self.begun += 1;
        let snapshot_id = SnapshotId::from_uuid(Uuid::from_u128(self.begun));
        let audiences: BTreeSet<&AudienceKey> =
            request.audiences.iter().filter(|audience| visible.contains(*audience)).collect();
        let rows: Vec<SnapshotRow> = rows_of(history, &audiences).collect();
        let header = header(history, user, &audiences, request);
        let mut parts: Vec<&[SnapshotRow]> = rows.chunks(self.rows_max).collect();
        if parts.is_empty() {
            parts.push(&[]);
        }
        let last = parts.len() - 1;
        let chunks = parts.into_iter().enumerate().map(|(index, rows)| SnapshotChunk {
            position: SnapshotPosition {
                snapshot_id,
                chunk: u32::try_from(index).expect("BUG: a server in memory has fewer chunks"),
            },
            header: (index == 0).then(|| header.clone()),
            rows: rows.to_vec(),
            last: index == last,
        });
        self.held.insert(snapshot_id, (request.client_id, chunks.collect()));
        while self.held.len() > HELD_MAX {
            self.held.pop_first();
        }
        snapshot_id
    }
}

fn rows_of<'h>(history: &'h History, audiences: &'h BTreeSet<&AudienceKey>) -> impl Iterator<Item = SnapshotRow> + 'h {
    history.rows().iter().filter(|(_, row)| audiences.contains(&row.audience_key)).map(|(key, row)| SnapshotRow {
        table: key.table.clone(),
        row_id: key.row_id.clone(),
        audience_key: row.audience_key.clone(),
        columns: row.columns.clone(),
    })
}

fn header(
    history: &History,
    user: &UserId,
    audiences: &BTreeSet<&AudienceKey>,
    request: &SnapshotRequest,
) -> SnapshotHeader {
    let audience = |audience_key: &AudienceKey| SnapshotAudience {
        audience_key: audience_key.clone(),
        cursor: history.head(audience_key),
        floor: history.floor(audience_key),
        rows: digest(history, audience_key).rows,
    };
    // Of others' records, nobody learns by their ids.
    let own = |id| history.entry(id).filter(|entry| entry.record.user_id == *user);
    let number = |id| own(id).and_then(|entry| entry.record.server_ingest_id);
    SnapshotHeader {
        audiences: audiences.iter().map(|key| audience(key)).collect(),
        known: request.ids.iter().filter_map(|id| number(*id).map(|number| (*id, number))).collect(),
    }
}

/// The digest of an audience's rows.
pub(super) fn digest(history: &History, audience: &AudienceKey) -> AudienceDigest {
    let mut digest = RowsDigest::default();
    let mut rows = 0;
    for (key, row) in history.rows().iter().filter(|(_, row)| row.audience_key == *audience) {
        digest.add(key, &row.columns);
        rows += 1;
    }
    AudienceDigest { head: history.head(audience), rows, digest }
}
