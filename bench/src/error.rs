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
