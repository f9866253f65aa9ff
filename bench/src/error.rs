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
