//! What can be set, and what cannot be set so.

use std::time::Duration;

use crate::media::Media;

/// Bounds of an [`HttpNetwork`](crate::HttpNetwork), in time and size.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpSettings {
    /// How long a connection may take to come about.
    pub connect_within: Duration,
    /// How long the app's [`TokenSource`](synchrotron_core::network::TokenSource) may take to give a token. Then the calls
    /// that wait for it fail, and the next one asks it anew.
    pub token_within: Duration,
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
    /// The form of messages; MessagePack is smaller and quicker.
    pub media: Media,
    /// Whether to listen for wakeups; without them, the client polls.
    pub listen: bool,
    /// After how much silence a stream of events is believed to be dead. The server's heartbeat is a third of it.
    pub silence_max: Duration,
    /// How long a poll waits for news, where streams do not come through.
    pub poll_wait: Duration,
    /// For how long polls stand in for streams that do not come through.
    pub polls_for: Duration,
    /// Listening again after a failure waits up to this, and twice as long after each further one, at random.
    pub again_first: Duration,
    /// And up to this at most.
    pub again_max: Duration,
    /// A server's `Retry-After` is honoured up to this.
    pub retry_after_max: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connect_within: Duration::from_secs(5),
            token_within: Duration::from_secs(30),
            session_within: Duration::from_secs(10),
            fetch_within: Duration::from_secs(30),
            upload_within: Duration::from_secs(30),
            snapshot_within: Duration::from_secs(30),
            digest_within: Duration::from_secs(60),
            request_bytes_max: 8 << 20,
            response_bytes_max: 32 << 20,
            media: Media::MessagePack,
            listen: true,
            silence_max: Duration::from_secs(45),
            poll_wait: Duration::from_secs(25),
            polls_for: Duration::from_secs(5 * 60),
            again_first: Duration::from_millis(500),
            again_max: Duration::from_secs(30),
            retry_after_max: Duration::from_secs(60),
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
