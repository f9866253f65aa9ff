//! What can be set, and what cannot be set so.

use std::time::Duration;

/// Bounds of an [`HttpNetwork`](crate::HttpNetwork), in time and size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSettings {
    /// How long a connection may take to come about.
    pub connect_within: Duration,
    /// How long a session may take to open.
    pub session_within: Duration,
    /// How long a page may take to arrive.
    pub fetch_within: Duration,
    /// How long an upload may take to be decided.
    pub upload_within: Duration,
    /// How long a chunk of a snapshot may take to arrive; the first one counts all rows.
    pub snapshot_within: Duration,
    /// How long digests may take to be made: they read all rows.
    pub digest_within: Duration,
    /// The largest message that is sent.
    pub request_bytes_max: usize,
    /// The largest answer that is read.
    pub response_bytes_max: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(5),
            session_within: Duration::from_secs(10),
            fetch_within: Duration::from_secs(30),
            upload_within: Duration::from_secs(30),
            snapshot_within: Duration::from_secs(30),
            digest_within: Duration::from_secs(60),
            request_bytes_max: 8 << 20,
            response_bytes_max: 32 << 20,
        }
    }
}

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// Not the URL of a server.
    #[error("not the URL of a server: {detail}")]
    BaseUrl {
        /// What is wrong with it.
        detail: String,
    },
    /// An `https://` URL in a build without the feature `tls`.
    #[error("https needs the feature `tls` of synchrotron-http")]
    TlsMissing,
    /// The HTTP client refuses to start.
    #[error("the HTTP client does not start: {0}")]
    Client(#[from] reqwest::Error),
}
