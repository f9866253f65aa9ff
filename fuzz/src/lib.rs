//! Every decoder of what comes from outside, as a function of any bytes.
//!
//! A target panics if the decoder does what it must not: panic itself, take what it would write otherwise, or take a
//! message in one form and not in another. It returns whether the bytes were taken, so that a test can tell a good corpus
//! from a stale one. `docs/fuzzing.md` says how to run them.

#[cfg(feature = "carriers")]
mod carriers;
#[cfg(feature = "carriers")]
mod http;
#[cfg(feature = "carriers")]
mod routed;
mod stored;
mod wire;

/// A decoder and what it owes.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and its corpus's.
    pub name: &'static str,
    /// Runs it: whether the bytes were taken.
    pub run: fn(&[u8]) -> bool,
}

macro_rules! targets {
    ($($(#[$attribute:meta])* $name:ident => $run:expr),* $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$($(#[$attribute])* Target { name: stringify!($name), run: $run }),*];
    };
}

targets! {
    session_request => wire::message::<synchrotron_core::wire::SessionRequest>,
    session_reply => wire::message::<synchrotron_core::wire::Reply<synchrotron_core::wire::Session>>,
    fetch_request => wire::message::<synchrotron_core::wire::FetchRequest>,
    fetch_reply => wire::message::<synchrotron_core::wire::Reply<synchrotron_core::wire::FetchPage>>,
    upload_batch => wire::message::<synchrotron_core::wire::UploadBatch>,
    outcome => wire::message::<synchrotron_core::wire::OutcomeMessage>,
    slice => wire::message::<synchrotron_core::wire::Slice>,
    snapshot_request => wire::message::<synchrotron_core::wire::SnapshotRequest>,
    snapshot_reply => wire::message::<synchrotron_core::wire::Reply<synchrotron_core::wire::SnapshotChunk>>,
    digest_request => wire::message::<synchrotron_core::wire::DigestRequest>,
    digest_reply => wire::message::<synchrotron_core::wire::Reply<synchrotron_core::wire::DigestReply>>,
    compressed_body => wire::compressed_body,
    compressed_frame => wire::compressed_frame,
    arguments => stored::arguments,
    columns => stored::columns,
    columns_json => stored::columns_json,
    #[cfg(feature = "carriers")]
    subject => carriers::subject,
    #[cfg(feature = "carriers")]
    subjects_of_ids => routed::named,
    #[cfg(feature = "carriers")]
    routed_message => routed::routed,
    #[cfg(feature = "carriers")]
    token => carriers::token,
    #[cfg(feature = "carriers")]
    http_session => http::request::<synchrotron_core::wire::SessionRequest>,
    #[cfg(feature = "carriers")]
    http_fetch => http::request::<synchrotron_core::wire::FetchRequest>,
    #[cfg(feature = "carriers")]
    http_upload => http::request::<synchrotron_core::wire::UploadBatch>,
    #[cfg(feature = "carriers")]
    http_snapshot => http::request::<synchrotron_core::wire::SnapshotRequest>,
    #[cfg(feature = "carriers")]
    http_digest => http::request::<synchrotron_core::wire::DigestRequest>,
    #[cfg(feature = "carriers")]
    http_poll => http::poll,
    #[cfg(feature = "carriers")]
    http_events => http::events,
    #[cfg(feature = "carriers")]
    http_accept => http::accept,
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().copied().find(|target| target.name == name)
}

/// What tokens of the corpus are signed with.
pub const TOKEN_SECRET: &[u8] = b"the secret of the fuzzed tokens";
/// The one user that tokens of the corpus prove.
pub const TOKEN_USER: &str = "alice";
