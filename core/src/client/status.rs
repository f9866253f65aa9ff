//! What an app can show about syncing.

use super::SyncError;
use crate::network::Carrier;

/// The sync status of a client.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// Whether and how it is connected.
    pub connection: Connection,
    /// Local actions that wait for the server.
    pub pending: u64,
    /// Local actions in quarantine.
    pub quarantined: usize,
    /// When the newest pass was done, in milliseconds since 1970.
    pub last_sync_ms: Option<i64>,
}

/// Whether and how a client is connected.
#[derive(Debug, Clone, Default)]
pub enum Connection {
    /// No network was given, or the app went offline.
    #[default]
    Offline,
    /// A session is being opened.
    Connecting,
    /// Syncing.
    Online {
        /// What carries messages now.
        carrier: Carrier,
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
            Self::Online { carrier } => Some(*carrier),
            Self::Offline | Self::Connecting | Self::Failed { .. } => None,
        }
    }
}
