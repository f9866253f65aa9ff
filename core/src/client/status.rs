//! What an app can show about syncing.

use super::SyncError;
use crate::engine::Held;
use crate::network::{Carrier, CarrierReason};

/// The sync status of a client.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether and how it is connected.
    pub connection: Connection,
    /// Local actions that wait for the server.
    pub pending: u64,
    /// Those of them that wait because the server's schema lacks a table or a column that they write, as it is while the app
    /// is newer than the server: grouped by what is lacking. They are tried again by themselves; later actions on the same
    /// rows wait with them, all others go.
    pub held: Vec<Held>,
    /// Local actions in quarantine.
    pub quarantined: u64,
    /// When the newest pass was done, in milliseconds since 1970.
    pub last_sync_ms: Option<i64>,
    /// The newest pass that failed. It stays when later passes succeed: compare it with `last_sync_ms`.
    pub last_error: Option<FailedPass>,
    /// How far the snapshot is that is being taken, while one is.
    pub bootstrap: Option<Progress>,
}

/// Whether and how a client is connected.
#[derive(Debug, Clone, Default)]
pub enum Connection {
    /// No network was given, or the app went offline.
    #[default]
    Offline,
    /// Another process syncs this database. Actions run here as ever, that process uploads them, and what it receives is
    /// seen here. This one takes over when it is gone.
    Following,
    /// A session is being opened.
    Connecting,
    /// Syncing.
    Online {
        /// What carries messages now.
        carrier: Carrier,
        /// Since when, in milliseconds since 1970.
        since_ms: i64,
        /// Why this carrier, and no other.
        reason: CarrierReason,
    },
    /// The newest try failed; the next follows by itself.
    Failed {
        /// Why.
        error: SyncError,
    },
}

impl Connection {
    /// What carries messages now, if anything does.
    #[must_use]
    pub const fn carrier(&self) -> Option<Carrier> {
        match self {
            Self::Online { carrier, .. } => Some(*carrier),
            Self::Offline | Self::Following | Self::Connecting | Self::Failed { .. } => None,
        }
    }
}

/// A pass that failed.
#[derive(Debug, Clone)]
pub struct FailedPass {
    /// Why.
    pub error: SyncError,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
}

/// How far a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Rows received.
    pub rows_done: u64,
    /// Rows in all, as the server counts them.
    pub rows_total: u64,
}
