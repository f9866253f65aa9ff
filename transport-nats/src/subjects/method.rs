//! What devices can ask servers for, and the token of each question.

/// What a device can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RpcMethod {
    /// Opens a session.
    Session,
    /// One page of records.
    Fetch,
    /// One chunk of a snapshot.
    Snapshot,
    /// Digests of audiences.
    Digest,
}

impl RpcMethod {
    /// Every method.
    pub const ALL: [Self; 4] = [Self::Session, Self::Fetch, Self::Snapshot, Self::Digest];

    /// Its token.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Fetch => "fetch",
            Self::Snapshot => "snapshot",
            Self::Digest => "digest",
        }
    }
}
