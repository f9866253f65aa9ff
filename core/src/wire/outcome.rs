//! What the server answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{ActionId, BatchId, Cursors, Epoch, ServerIngestId};

/// The fate of one upload. Nothing but [`Outcome::Accepted`] means that anything was kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All records are committed in Postgres.
    Accepted {
        /// The number of each record of the batch.
        ids: BTreeMap<ActionId, ServerIngestId>,
    },
    /// The device has not seen everything of its audiences: fetch, integrate, retry.
    BehindHead {
        /// The heads that the basis was behind of.
        heads: Cursors,
    },
    /// One record can never be accepted; nothing of the batch was kept.
    Rejected {
        /// Which.
        action: ActionId,
        /// The class of reason.
        kind: RejectionKind,
        /// The fact, without row values.
        reason: String,
    },
    /// A record's clock is too far in the server's future: restamp and retry.
    ClockAhead {
        /// The server's wall clock, in milliseconds since 1970.
        server_time_ms: i64,
        /// How far ahead is tolerated, in milliseconds.
        max_ahead_ms: i64,
    },
    /// A record's clock is before everything that the server still keeps: rebase, with new clocks.
    TooOld {
        /// The oldest clock that is taken, in milliseconds since 1970.
        oldest_ms: i64,
    },
    /// The batch belongs to another history.
    EpochChanged {
        /// The server's present history.
        current: Epoch,
    },
    /// The connection proves no user (any more): get a new token, retry.
    Unauthenticated {
        /// What was wrong with the token.
        reason: String,
    },
    /// Trouble on the server's side: retry later.
    Retry {
        /// Not before this many milliseconds.
        after_ms: u64,
    },
    /// The batch as a whole is not one that the server can read or take; nothing was kept.
    Refused(Fault),
}

/// Why one record can never be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum RejectionKind {
    /// Row Level Security or audience membership says no.
    Denied,
    /// It names a table that is not tracked.
    UnknownTable,
    /// It names a column that does not exist, or one that cannot be written.
    UnknownColumn,
    /// A value does not fit its column, or a constraint of the database refuses the row.
    Constraint,
    /// The row's real audience is not the one that the patch names.
    AudienceMismatch,
    /// The record's id was used for other content.
    DuplicateId,
    /// The record contradicts itself: rows out of sequence, arguments that are no map, an operation out of place.
    Malformed,
    /// The record is larger than the server takes.
    TooLarge,
}

/// An [`Outcome`] on its way to the device that uploaded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
pub struct OutcomeMessage {
    /// Which batch; `None` if it could not be read.
    pub batch_id: Option<BatchId>,
    /// Its fate.
    pub outcome: Outcome,
}

/// The answer to `session` and `fetch`: the thing itself, or the fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reply<T> {
    /// As asked.
    Ok(T),
    /// Not so.
    Fault(Fault),
}

impl<T> From<Result<T, Fault>> for Reply<T> {
    fn from(result: Result<T, Fault>) -> Self {
        match result {
            Ok(value) => Self::Ok(value),
            Err(fault) => Self::Fault(fault),
        }
    }
}

impl<T> From<Reply<T>> for Result<T, Fault> {
    fn from(reply: Reply<T>) -> Self {
        match reply {
            Reply::Ok(value) => Ok(value),
            Reply::Fault(fault) => Err(fault),
        }
    }
}

/// A request was not served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[error("{code:?}: {message}")]
pub struct Fault {
    /// The class, stable across versions.
    pub code: FaultCode,
    /// The fact: what and where, without row values.
    pub message: String,
}

impl Fault {
    /// A fault of this class with this fact.
    #[must_use]
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// Classes of [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "json-schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FaultCode {
    /// No valid token: get a new one.
    Unauthenticated,
    /// The device belongs to another user.
    ForeignClient,
    /// The bytes are not the message that belongs here.
    Malformed,
    /// An envelope version that this side does not speak.
    UnsupportedVersion,
    /// Larger than this side takes.
    TooLarge,
    /// The cursors belong to another history.
    EpochChanged,
    /// Records after the cursors are compacted away: take a snapshot.
    Compacted,
    /// The snapshot is no longer held: begin another.
    SnapshotGone,
    /// The server cannot serve now; try again.
    Unavailable,
}
