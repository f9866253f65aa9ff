//! What can stop a step of the engine. Nothing of a failed step is kept.

use super::Impurity;
use super::doctor::Finding;
use crate::action::ActionError;
use crate::model::{ActionTag, AudienceKey, Epoch, IdError, TableName, UserId};
use crate::store::StoreError;

/// A step other than `execute` failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The local database cannot.
    #[error(transparent)]
    Store(StoreError),
    /// What arrived cannot be stored in this app's schema. The app must be upgraded; until then nothing that comes after
    /// it is integrated, and local work goes on.
    #[error("upgrade the app: its table {table} cannot take accepted rows, for want of column {column}")]
    UpgradeRequired {
        /// The table.
        table: TableName,
        /// The column that must not be NULL here, and is not given; or is of another type.
        column: String,
    },
    /// The connection proves another user than the one this database belongs to.
    #[error("this database belongs to {expected}, the server sees {actual}")]
    ForeignUser {
        /// Whose data is here.
        expected: UserId,
        /// Whom the server sees.
        actual: UserId,
    },
    /// The server has another history than the one that the cursors belong to: a new session recovers.
    #[error("the server's history is {actual}, the cursors belong to {expected}")]
    EpochChanged {
        /// The history known here.
        expected: Epoch,
        /// The server's present one.
        actual: Epoch,
    },
    /// The sync tables contradict themselves: the rows must be taken from the server again.
    #[error("the database is damaged: {finding}")]
    Damaged {
        /// What was found.
        finding: Finding,
    },
    /// The user has signed out of this database: open it anew.
    #[error("nobody is signed in to this database")]
    SignedOut,
    /// A step that needs a session came before the first one.
    #[error("no session has been opened yet")]
    NoSession,
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Incompatible { table, column } => Self::UpgradeRequired { table, column },
            other => Self::Store(other),
        }
    }
}

/// An action was not executed; it left nothing behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecuteError {
    /// The action itself failed: the app's rule, a statement, a panic.
    #[error(transparent)]
    Action(#[from] ActionError),
    /// The local database cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user has signed out of this database: open it anew.
    #[error("nobody is signed in to this database")]
    SignedOut,
    /// The action's tag is not one.
    #[error("bad tag: {0}")]
    Tag(#[from] IdError),
    /// The action was not registered, so it could never be replayed.
    #[error("action {tag} is not registered")]
    Unregistered {
        /// The action's tag.
        tag: ActionTag,
    },
    /// The arguments do not encode to a map.
    #[error("arguments of {tag} do not encode to a MessagePack map: use a struct with named fields")]
    ArgumentsNoMap {
        /// The action's tag.
        tag: ActionTag,
    },
    /// The action is larger than may be uploaded.
    #[error("action of {actual} bytes, at most {max} are allowed")]
    TooLarge {
        /// The bound.
        max: usize,
        /// Its encoded size.
        actual: usize,
    },
    /// The action did different things in two runs on the same rows; asked for by the purity check.
    #[error("{tag} is not deterministic: {difference}")]
    Impure {
        /// The action's tag.
        tag: ActionTag,
        /// Where the runs differ.
        difference: Impurity,
    },
    /// The action writes a row of an audience that the user is not in.
    #[error("the user is not in audience {audience}")]
    ForeignAudience {
        /// The row's audience.
        audience: AudienceKey,
    },
}
