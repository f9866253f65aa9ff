//! What can stop a benchmark.

use std::path::PathBuf;

use synchrotron_core::engine::{EngineError, ExecuteError};
use synchrotron_core::store::StoreError;

/// A benchmark could not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A step of the engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// An action was not executed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// A statement of a floor failed.
    #[error("floor: {0}")]
    Floor(#[from] rusqlite::Error),
    /// Postgres could not be started.
    #[error(transparent)]
    Service(#[from] synchrotron_testkit::ServiceError),
    /// The server did not start.
    #[error(transparent)]
    Start(#[from] synchrotron_server::StartError),
    /// A statement on Postgres failed.
    #[error("postgres: {0}")]
    Postgres(#[from] sqlx_core::Error),
    /// The server did not serve.
    #[error(transparent)]
    Fault(#[from] synchrotron_core::wire::Fault),
    /// An upload was not accepted.
    #[error("not accepted: {0:?}")]
    NotAccepted(synchrotron_core::wire::Outcome),
    /// Something is missing of what was read.
    #[error("{actual} came, {expected} are there")]
    Incomplete {
        /// How much there is.
        expected: usize,
        /// How much came.
        actual: usize,
    },
    /// A client did not open.
    #[error(transparent)]
    Open(#[from] synchrotron_core::client::OpenError),
    /// A client did not do what it was asked.
    #[error(transparent)]
    Client(#[from] synchrotron_core::client::ClientError),
    /// A network did not carry.
    #[error(transparent)]
    Network(#[from] synchrotron_core::network::NetworkError),
    /// A client over HTTP cannot be made.
    #[error(transparent)]
    Http(#[from] synchrotron_http::SetupError),
    /// The server did not start.
    #[error(transparent)]
    Server(#[from] synchrotron_server::ServerError),
    /// NATS did not do what it was asked.
    #[error("NATS: {detail}")]
    Nats {
        /// What it said.
        detail: String,
    },
    /// A token could not be made.
    #[error("token: {detail}")]
    Token {
        /// Why.
        detail: String,
    },
    /// Something did not come in any bearable time.
    #[error("waited in vain for {what}")]
    Late {
        /// For what.
        what: &'static str,
    },
    /// A process of this program said something else than what it should.
    #[error("{process} said: {answer}")]
    Said {
        /// Which.
        process: &'static str,
        /// What it said.
        answer: String,
    },
    /// A task ended before its end.
    #[error(transparent)]
    Task(#[from] tokio::task::JoinError),
    /// A file, a folder or a process failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The figures could not be written.
    #[error("writing {path}: {source}")]
    Report {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The process that measures its memory did not say how much.
    #[error("the peak of {step} was not told: {answer}")]
    NoPeak {
        /// What it was to do.
        step: &'static str,
        /// What it said instead.
        answer: String,
    },
}

impl BenchError {
    /// For `map_err`.
    pub(crate) fn nats(error: impl std::fmt::Display) -> Self {
        Self::Nats { detail: error.to_string() }
    }

    /// For `map_err`.
    pub(crate) fn token(error: impl std::fmt::Display) -> Self {
        Self::Token { detail: error.to_string() }
    }
}
