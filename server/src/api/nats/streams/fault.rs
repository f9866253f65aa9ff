//! What is wrong with a stream, and what mends it.

/// A stream is not what it must be, or not what the settings say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamFault {
    /// It is not there, and the server is told to make none.
    #[error("stream {stream} is not there, and nats.manage_streams is false")]
    Missing {
        /// Which.
        stream: String,
        /// What it must take.
        subjects: String,
    },
    /// It cannot be used as it is.
    #[error("stream {stream} has {field} {existing:?}, {needed:?} is needed")]
    Lacks {
        /// Which.
        stream: String,
        /// What of it, as NATS calls it.
        field: &'static str,
        /// What it has.
        existing: String,
        /// What it must have.
        needed: String,
    },
    /// The settings ask for less than it has. It stays as it is, and is used.
    #[error("stream {stream} has {field} {existing}, and is not shrunk to {wanted}")]
    Shrinks {
        /// Which.
        stream: String,
        /// What of it, as NATS calls it; ages in seconds.
        field: &'static str,
        /// What it has; nothing above zero is no bound.
        existing: i64,
        /// What the settings say.
        wanted: i64,
    },
}

impl StreamFault {
    /// For programs.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "stream_missing",
            Self::Lacks { .. } => "stream_lacks",
            Self::Shrinks { .. } => "stream_shrinks",
        }
    }

    /// Which stream.
    #[must_use]
    pub fn stream(&self) -> &str {
        match self {
            Self::Missing { stream, .. } | Self::Lacks { stream, .. } | Self::Shrinks { stream, .. } => stream,
        }
    }

    /// The command that mends it, for people.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::Missing { stream, subjects } => {
                format!("nats stream add {stream} --subjects='{subjects}', or set nats.manage_streams")
            }
            // NATS changes these in no stream that it has.
            Self::Lacks { stream, field: "retention" | "mirror" | "sealed", .. } => {
                format!("nats stream rm {stream}: a server makes it anew, and nothing is lost that Postgres has")
            }
            Self::Lacks { stream, field, needed, .. } => {
                format!("nats stream edit {stream}, with {field} {needed}; or set nats.manage_streams")
            }
            Self::Shrinks { stream, field, .. } => {
                let flag = match *field {
                    "max_bytes" => "--max-bytes",
                    "max_age" => "--max-age",
                    _ => "--replicas",
                };
                format!("nats stream edit {stream} {flag}=… to shrink it, or the setting as large as it is")
            }
        }
    }
}
