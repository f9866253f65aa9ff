//! Which token a client presents: one, until the server refuses it.
//!
//! # Invariants
//! - The source is asked by one call at a time. Calls whose token was refused meanwhile take what it brought.
//! - A token that was refused is not presented again, unless the source says that it has no other.

use std::fmt;
use std::sync::Arc;

use synchrotron_core::network::{NetworkError, TokenSource};
use tokio::sync::Mutex;

pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<Arc<str>>,
    /// How often the source has answered.
    answers: u64,
}

/// A token, and which answer of the source it was.
#[derive(Clone)]
pub(crate) struct HeldToken {
    pub(crate) token: Arc<str>,
    answer: u64,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { source, held: Mutex::default() }
    }

    /// The token to present.
    ///
    /// # Errors
    /// [`NetworkError::Token`] if there is none and none can be had.
    pub(crate) async fn token(&self) -> Result<HeldToken, NetworkError> {
        let mut held = self.held.lock().await;
        match &held.token {
            Some(token) => Ok(HeldToken { token: Arc::clone(token), answer: held.answers }),
            None => held.ask(&*self.source).await,
        }
    }

    /// A token other than the one that was refused; `None` if the source has no other. It is asked once, however many
    /// calls come with the same token.
    ///
    /// # Errors
    /// [`NetworkError::Token`] if none can be had.
    pub(crate) async fn other_than(&self, refused: &HeldToken) -> Result<Option<HeldToken>, NetworkError> {
        let mut held = self.held.lock().await;
        if held.answers == refused.answer {
            held.token = None;
            held.ask(&*self.source).await?;
        }
        if held.token.as_ref() == Some(&refused.token) {
            // Asking the server again would not change its mind; the next call asks the source again.
            held.token = None;
        }
        let answer = held.answers;
        Ok(held.token.clone().map(|token| HeldToken { token, answer }))
    }

    /// Drops a token that was refused, unless there is a newer one already.
    pub(crate) async fn forget(&self, refused: &HeldToken) {
        let mut held = self.held.lock().await;
        if held.answers == refused.answer {
            held.token = None;
        }
    }
}

impl Held {
    async fn ask(&mut self, source: &dyn TokenSource) -> Result<HeldToken, NetworkError> {
        let token: Arc<str> = source.token().await?.into();
        self.answers += 1;
        self.token = Some(Arc::clone(&token));
        Ok(HeldToken { token, answer: self.answers })
    }
}

impl fmt::Debug for Tokens {
    /// A token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}
