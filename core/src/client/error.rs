//! What an app may be told.

use crate::action::RegistryError;
use crate::engine::{EngineError, ExecuteError, Held, RetryError, SignOutError};
use crate::model::IdError;
use crate::network::NetworkError;
use crate::store::{SqlError, StoreError};
use crate::wire::Outcome;

/// A call on the client failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// The action was not executed; nothing of it stays.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The engine could not read or write its database.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The user was not signed out.
    #[error(transparent)]
    SignOut(#[from] SignOutError),
    /// A quarantined action was not executed again; it stays in quarantine.
    #[error(transparent)]
    Retry(#[from] RetryError),
    /// A query failed.
    #[error(transparent)]
    Sql(SqlError),
    /// A requested sync pass failed. The driver tries again by itself.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The table is not one of those that the client was built with, so no commit ever touches it.
    #[error("table {table} is not synced")]
    NotTracked {
        /// What was asked for.
        table: String,
    },
    /// There is no network to sync with: [`super::Client::go_online`] first.
    #[error("the client is offline")]
    Offline,
    /// The runtime is shutting down, or a step of the engine panicked (which is a bug of this library).
    #[error("the step was interrupted (panicked: {panicked})")]
    Interrupted {
        /// Whether it panicked.
        panicked: bool,
    },
}

/// The client could not be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The builder was not told this.
    #[error("say {what} before open()")]
    Missing {
        /// What is missing.
        what: &'static str,
    },
    /// An action cannot be registered.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The user id or a table's name is not one.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(StoreError),
    /// The engine cannot start on it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file that is kept beside the database, or the database itself, cannot be read or written.
    #[error("{}, kept beside the database: {kind}", path.display())]
    Beside {
        /// Which file.
        path: std::path::PathBuf,
        /// The operating system's reason.
        kind: std::io::ErrorKind,
    },
    /// Row ids of a table are to be made of a column that it does not have.
    #[error("table {table} has no column {column} for its identity: an action gives it, so it must not be generated")]
    Identity {
        /// The table.
        table: String,
        /// The column.
        column: String,
    },
    /// The database belongs to another user.
    #[error("the database belongs to {expected}, not to {actual}")]
    ForeignUser {
        /// Whose data is there.
        expected: crate::model::UserId,
        /// Who opened it.
        actual: crate::model::UserId,
    },
}

impl From<StoreError> for OpenError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::ForeignUser { expected, actual } => Self::ForeignUser { expected, actual },
            other => Self::Store(other),
        }
    }
}

/// A sync pass failed. Nothing is lost; the driver backs off and tries again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SyncError {
    /// No carrier reached the server, or the server did not serve.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The engine could not take what came.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The server cannot take this device's work now.
    #[error("the server did not take the batch: {outcome:?}")]
    NotTaken {
        /// Why.
        outcome: Outcome,
    },
    /// The server's answer leads nowhere: a page that more follows moves no cursor, or a snapshot lacks what it is to be
    /// of, since a membership ended meanwhile. The next session tells.
    #[error("the server's answer leads nowhere")]
    NoProgress,
    /// The server does not hold the snapshots that this device begins, however often it begins one. Behind several servers
    /// without NATS, the balancer sends one device's calls to several of them. The driver goes on trying, ever more rarely.
    #[error("the server lost every snapshot that was begun")]
    SnapshotLost,
    /// All is synced but actions that the server's schema cannot take yet: the app's is ahead of it. They stay pending, and
    /// are tried again by themselves.
    #[error("the server's schema cannot take {} actions yet: {}", actions(held), reasons(held))]
    Held {
        /// What they wait for.
        held: Vec<Held>,
    },
    /// Another process syncs this database; it also uploads what is executed here.
    #[error("another process syncs this database")]
    Following,
    /// The lock file beside the database, `<database>.sync`, cannot be used.
    #[error("the lock file beside the database cannot be used: {kind}")]
    Lock {
        /// What the file system said.
        kind: std::io::ErrorKind,
    },
    /// The runtime is shutting down, or a step or the network panicked.
    #[error("the pass was interrupted (panicked: {panicked})")]
    Interrupted {
        /// Whether something panicked.
        panicked: bool,
    },
}

fn actions(held: &[Held]) -> u64 {
    held.iter().map(|held| held.actions).sum()
}

fn reasons(held: &[Held]) -> String {
    let reasons: Vec<&str> = held.iter().map(|held| held.reason.as_str()).collect();
    reasons.join("; ")
}

impl SyncError {
    /// Whether the server did not believe the token, so that this client's work waits for one that holds. The driver asks
    /// the app's [`TokenSource`](crate::network::TokenSource) for another each time it tries again; an app may ask its user
    /// to sign in. Nothing is lost meanwhile.
    ///
    /// ```
    /// use synchrotron_core::client::SyncError;
    /// use synchrotron_core::network::{Carrier, NetworkError};
    ///
    /// assert!(SyncError::from(NetworkError::Unauthenticated { carrier: Carrier::Nats }).is_unauthenticated());
    /// assert!(!SyncError::Following.is_unauthenticated());
    /// ```
    #[must_use]
    pub const fn is_unauthenticated(&self) -> bool {
        match self {
            Self::Network(error) => error.is_unauthenticated(),
            Self::NotTaken { outcome } => matches!(outcome, Outcome::Unauthenticated { .. }),
            _ => false,
        }
    }
}

impl From<ClientError> for SyncError {
    /// Only steps of the engine pass through here.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Sync(error) => error,
            ClientError::Engine(error) => Self::Engine(error),
            ClientError::Interrupted { panicked } => Self::Interrupted { panicked },
            ClientError::Execute(_)
            | ClientError::SignOut(_)
            | ClientError::Retry(_)
            | ClientError::Sql(_)
            | ClientError::NotTracked { .. }
            | ClientError::Offline => Self::Interrupted { panicked: false },
        }
    }
}
