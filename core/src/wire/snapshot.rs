//! Snapshots: the rows of whole audiences, in chunks of one consistent read; and digests, to compare rows without sending
//! them.
//!
//! Place in the journey: beside it. A device takes a snapshot of an audience that it gains, that was compacted past its
//! cursor, or where something arrived beneath its floor. It asks for one chunk after the other; each asks for the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{
    ActionId, AudienceKey, ClientId, Columns, Cursor, Epoch, ReplayKey, RowId, RowsDigest, ServerIngestId, SnapshotId,
    TableName,
};

/// Asks for the first chunk of a snapshot, or for the next one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotRequest {
    /// The asking device.
    pub client_id: ClientId,
    /// The history that the device is at.
    pub epoch: Epoch,
    /// The audiences wanted, in byte order.
    pub audiences: Vec<AudienceKey>,
    /// Own records whose fate the device does not know: the header says which of them the snapshot holds.
    pub ids: Vec<ActionId>,
    /// The chunk wanted of a snapshot that was begun; `None` begins one.
    pub resume: Option<SnapshotPosition>,
}

/// A chunk of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotPosition {
    /// Which snapshot.
    pub snapshot_id: SnapshotId,
    /// Which chunk, from 0.
    pub chunk: u32,
}

/// One chunk: the same again whenever it is asked for again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotChunk {
    /// Which snapshot, and which chunk of it.
    pub position: SnapshotPosition,
    /// What the snapshot is of; in chunk 0, and in no other.
    pub header: Option<SnapshotHeader>,
    /// Rows, in any order of tables.
    pub rows: Vec<SnapshotRow>,
    /// Whether this is the last chunk.
    pub last: bool,
}

/// What a snapshot is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotHeader {
    /// Those of the asked audiences that the user is in, in byte order.
    pub audiences: Vec<SnapshotAudience>,
    /// Those of the asked records that the server has accepted: what they did is in the snapshot.
    pub known: BTreeMap<ActionId, ServerIngestId>,
}

/// One audience of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotAudience {
    /// The audience.
    pub audience_key: AudienceKey,
    /// Its head when the snapshot was read: everything through here is in the rows.
    pub cursor: Cursor,
    /// The greatest position of any record that has rows in the audience: nothing beneath it can be replayed on these rows.
    pub floor: Option<ReplayKey>,
    /// How many rows of it follow.
    pub rows: u64,
}

/// A row as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct SnapshotRow {
    /// The row's table.
    pub table: TableName,
    /// The row.
    pub row_id: RowId,
    /// Who may see it.
    pub audience_key: AudienceKey,
    /// All its columns, without the primary key and without `audience_key`.
    pub columns: Columns,
}

/// Asks for the digests of some audiences.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct DigestRequest {
    /// The asking device.
    pub client_id: ClientId,
    /// The history that the device is at.
    pub epoch: Epoch,
    /// The audiences; those that the user is not in are left out of the answer.
    pub audiences: Vec<AudienceKey>,
}

/// The digests of some audiences, from one consistent read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct DigestReply {
    /// The server's history.
    pub epoch: Epoch,
    /// By audience.
    pub audiences: BTreeMap<AudienceKey, AudienceDigest>,
}

/// The rows of one audience in a few bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct AudienceDigest {
    /// The audience's head when the rows were read.
    pub head: Cursor,
    /// How many rows it has.
    pub rows: u64,
    /// Their digest.
    pub digest: RowsDigest,
}
