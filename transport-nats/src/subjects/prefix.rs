//! What every subject begins with, so that several systems can share one NATS.

use std::fmt;
use std::sync::Arc;

/// What every subject begins with: one or more plain tokens.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectPrefix(Arc<str>);

/// Why a text is no prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("subject prefix must be tokens of A-Z a-z 0-9 _ - separated by dots, at most {max} bytes")]
pub struct PrefixError {
    /// The longest prefix.
    pub max: usize,
}

impl SubjectPrefix {
    /// The longest prefix, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// Checks the text and wraps it.
    ///
    /// # Errors
    /// [`PrefixError`] if it is empty, too long, or has other characters than plain ones.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = prefix.len() <= Self::MAX_BYTES;
        if fits && prefix.split('.').all(|token| !token.is_empty() && token.bytes().all(plain)) {
            Ok(Self(prefix.into()))
        } else {
            Err(PrefixError { max: Self::MAX_BYTES })
        }
    }
}

impl Default for SubjectPrefix {
    /// `sync`.
    fn default() -> Self {
        Self("sync".into())
    }
}

impl fmt::Display for SubjectPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
