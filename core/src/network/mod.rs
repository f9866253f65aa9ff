//! What the engine needs of a network, and nothing more.
//!
//! Place in the journey: between the client's driver and a transport crate. A transport moves messages; it decides
//! nothing. Publish acknowledgements never cross this trait: only [`Outcome::Accepted`] means kept.

#[cfg(feature = "client")]
mod failover;
#[cfg(feature = "test-util")]
pub mod memory;
#[cfg(feature = "transport")]
mod shared_token;
#[cfg(feature = "test-util")]
pub mod suite;
mod token;

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;

#[cfg(feature = "client")]
pub use failover::{Failover, FailoverPauses};
#[cfg(feature = "transport")]
pub use shared_token::{NumberedToken, SharedTokenSource};
pub use token::{StaticToken, TokenSource};

use crate::model::AudienceKey;
use crate::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest, Slice,
    SnapshotChunk, SnapshotRequest, UploadBatch, WireError,
};

/// Carries messages between one device and the server.
///
/// Every call may be repeated; a repeated upload of one batch has one effect. Implementations bound each call in time.
#[async_trait]
pub trait Network: Send + Sync + std::fmt::Debug + 'static {
    /// Asks who the user is and what it may see.
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError>;

    /// Asks for the records after some cursors.
    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError>;

    /// Offers a batch and waits for its outcome.
    ///
    /// # Errors
    /// Any error leaves the outcome *unknown*: the batch may or may not be committed. Send the same batch again.
    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError>;

    /// Asks for one chunk of a snapshot; the same chunk again is the same.
    ///
    /// # Errors
    /// [`FaultCode::SnapshotGone`]: begin another.
    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError>;

    /// Asks for the digests of audiences.
    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError>;

    /// Live events of these audiences, until the stream is dropped; `None` if this network has no push.
    ///
    /// The stream is lossy by contract: events may be missing, doubled or out of order. It yields [`Ingress::Wakeup`]
    /// whenever something may have been missed, such as after a reconnect.
    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError>;

    /// What carries messages now.
    fn carrier(&self) -> Carrier;

    /// Why that, and no other.
    fn reason(&self) -> CarrierReason {
        CarrierReason::Only
    }

    /// Whether a stream of [`Self::subscribe`] tells of changes now, so that asking for them often is needless.
    fn is_pushing(&self) -> bool {
        self.carrier().is_live()
    }
}

/// Something arrived, or may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ingress {
    /// Records of one audience.
    Slice(Slice),
    /// Something may have changed: fetch.
    Wakeup,
}

/// What carries messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// NATS, with live events.
    Nats,
    /// HTTP, with wakeups where proxies let them through, else by polling.
    Http,
    /// A server in this process.
    Memory,
    /// Nothing, at present.
    Offline,
}

impl Carrier {
    /// Whether changes arrive by themselves, with their rows.
    #[must_use]
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Nats | Self::Memory)
    }
}

/// Why this carrier carries, and no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CarrierReason {
    /// There is no other.
    #[default]
    Only,
    /// It is the preferred one.
    Preferred,
    /// The preferred one failed. It is tried again by itself.
    Fallback {
        /// How it failed last.
        trouble: CarrierTrouble,
    },
    /// The preferred one answers again, and is returned to when it goes on to.
    Proving {
        /// How it failed last.
        after: CarrierTrouble,
    },
}

/// How a carrier failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarrierTrouble {
    /// It is not connected.
    Disconnected,
    /// A call failed at once.
    Unavailable,
    /// A call was not answered in time.
    NoAnswer {
        /// Which.
        call: &'static str,
        /// The deadline that passed.
        after_ms: u64,
    },
}

/// Why a call did not return what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum NetworkError {
    /// The server cannot be reached; the next carrier may.
    #[error("{carrier:?} is unavailable: {detail}")]
    Unavailable {
        /// Which carrier.
        carrier: Carrier,
        /// The transport's own words.
        detail: String,
    },
    /// No answer in time. An upload's outcome is unknown.
    #[error("no answer to {call} from {carrier:?} within {after_ms} ms")]
    Timeout {
        /// Which carrier.
        carrier: Carrier,
        /// Which call.
        call: &'static str,
        /// The deadline that passed.
        after_ms: u64,
    },
    /// The server answered that it will not serve this.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The carrier does not let this device in: its token does not hold, or nobody can say now whether it does; the next
    /// may.
    #[error("{carrier:?} does not let this device in: its token does not hold, or no server can say whether it does")]
    Unauthenticated {
        /// Which carrier.
        carrier: Carrier,
    },
    /// The carrier does not let this device do it; the next may.
    #[error("{carrier:?} does not permit {what}")]
    NotPermitted {
        /// Which carrier.
        carrier: Carrier,
        /// What was not permitted.
        what: String,
    },
    /// The message does not fit through this carrier; the next may take it.
    #[error("message of {actual} bytes, {carrier:?} takes at most {max}")]
    TooLarge {
        /// Which carrier.
        carrier: Carrier,
        /// Its bound.
        max: usize,
        /// The message's size.
        actual: usize,
    },
    /// The answer cannot be read.
    #[error("unreadable answer: {0}")]
    Wire(#[from] Arc<WireError>),
    /// The app's token callback failed.
    #[error("no token: {0}")]
    Token(String),
}

impl NetworkError {
    /// Whether another carrier may succeed where this one failed.
    #[must_use]
    pub const fn is_carrier_trouble(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. } | Self::Timeout { .. } | Self::Unauthenticated { .. } | Self::NotPermitted { .. }
        ) || self.is_too_large()
    }

    /// Whether the device was not let in with the token that it showed. Its work waits for one that holds.
    #[must_use]
    pub const fn is_unauthenticated(&self) -> bool {
        matches!(self, Self::Unauthenticated { .. } | Self::Fault(Fault { code: FaultCode::Unauthenticated, .. }))
    }

    /// Whether a message did not fit, on its way there or back: nothing is wrong with the carrier.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Fault(Fault { code: FaultCode::TooLarge, .. }))
    }
}

impl From<WireError> for NetworkError {
    fn from(error: WireError) -> Self {
        Self::Wire(Arc::new(error))
    }
}
