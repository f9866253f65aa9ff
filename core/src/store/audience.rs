//! Where this device stands in each of its audiences, and the snapshots that bring it there.

use super::StoreError;
use crate::model::{AudienceKey, AudienceRow, Cursor, ReplayKey, RowsDigest, TableName};
use crate::wire::{SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRow};

/// Where this device stands in one audience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AudienceState {
    /// Everything through here is applied.
    pub cursor: Cursor,
    /// Its rows came from a snapshot of everything through this position, and its older records are not here. `None` if
    /// every record of it is.
    pub floor: Option<ReplayKey>,
    /// Its rows must be taken from a snapshot; nothing of it is integrated before.
    pub stale: bool,
}

/// A snapshot on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// The chunk that is wanted next.
    pub next: SnapshotPosition,
    /// What the snapshot is of.
    pub header: SnapshotHeader,
    /// How many rows are here.
    pub rows_done: u64,
}

/// Audiences, and the rows of whole audiences.
pub trait AudienceStore {
    /// The user's audiences as far as this device knows.
    fn audiences(&self) -> Result<Vec<(AudienceKey, AudienceState)>, StoreError>;
    /// Adds an audience, or sets all of its state, also backwards.
    fn put_audience(&self, audience: &AudienceKey, state: &AudienceState) -> Result<(), StoreError>;
    /// Forgets an audience: its state, its rows, and what the log holds of it, without a trace for undo. Records of which
    /// nothing visible is left are forgotten too, unless they are not accepted yet. Returns the tables that had such rows.
    ///
    /// To be called when nothing that is not accepted yet is applied.
    fn forget_audience(&self, audience: &AudienceKey) -> Result<Vec<TableName>, StoreError>;

    /// Sets rows as a snapshot says, without a trace for undo. One whose id, or a value that is UNIQUE here, another row
    /// has is displaced: that one's own snapshot, or its log, will free it.
    fn load_rows(&self, rows: &[SnapshotRow]) -> Result<(), StoreError>;
    /// Puts back displaced rows whose place is free, without a trace for undo: rows of whole audiences came or went.
    fn return_displaced(&self) -> Result<(), StoreError>;
    /// How many rows an audience has here, and their digest.
    fn digest(&self, audience: &AudienceKey) -> Result<(u64, RowsDigest), StoreError>;
    /// Tells every tracked row to `each`, with the digest of that row alone.
    fn each_row(&self, each: &mut dyn FnMut(AudienceRow, RowsDigest)) -> Result<(), StoreError>;

    /// The snapshot on its way, if there is one.
    fn staged(&self) -> Result<Option<Staged>, StoreError>;
    /// Keeps a chunk of it. The one with the header begins a new one.
    fn stage(&self, chunk: &SnapshotChunk) -> Result<(), StoreError>;
    /// The rows of a chunk that is here.
    fn staged_rows(&self, chunk: u32) -> Result<Vec<SnapshotRow>, StoreError>;
    /// Drops the snapshot on its way.
    fn drop_staged(&self) -> Result<(), StoreError>;
}
