//! Where a transport has its tokens from: the app.
//!
//! Place in the journey: before a connection, and after each answer that a token is not believed.

use async_trait::async_trait;

use super::NetworkError;

/// Where a transport gets its bearer token: asked anew for each connection and after each `Unauthenticated`.
///
/// It is asked by one call at a time, in a task of its own. A transport waits for so long at most (30 s, unless its settings
/// say otherwise); then the future is dropped, calls end with [`NetworkError::Timeout`], and the next one asks anew.
#[async_trait]
pub trait TokenSource: Send + Sync + std::fmt::Debug + 'static {
    /// The token to present now.
    ///
    /// # Errors
    /// [`NetworkError::Token`] if none can be had.
    async fn token(&self) -> Result<String, NetworkError>;
}

/// A token that never changes.
#[derive(Clone)]
pub struct StaticToken(String);

impl StaticToken {
    /// Wraps the token.
    #[must_use]
    pub fn new(token: impl Into<String>) -> Self {
        Self(token.into())
    }
}

impl std::fmt::Debug for StaticToken {
    /// A token is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StaticToken(…)")
    }
}

#[async_trait]
impl TokenSource for StaticToken {
    async fn token(&self) -> Result<String, NetworkError> {
        Ok(self.0.clone())
    }
}
