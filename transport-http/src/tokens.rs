//! Which token a client presents: one, until the server refuses it.
//!
//! # Invariants
//! - A token that was refused is not presented again, unless the source says that it has no other.
//! - Calls whose token was refused meanwhile take what the source said then ([`SharedTokenSource`]).

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use synchrotron_core::network::{Carrier, NetworkError, NumberedToken, SharedTokenSource, TokenSource};

pub(crate) struct Tokens {
    source: SharedTokenSource,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    token: Option<NumberedToken>,
    /// The number of the newest token that was held.
    newest: u64,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>, within: Duration) -> Self {
        Self { source: SharedTokenSource::new(source, Carrier::Http, within), held: Mutex::default() }
    }

    /// The token to present.
    ///
    /// # Errors
    /// [`NetworkError::Token`] if there is none and none can be had, [`NetworkError::Timeout`] if the source does not say.
    pub(crate) async fn token(&self) -> Result<NumberedToken, NetworkError> {
        let held = self.held().token.clone();
        match held {
            Some(token) => Ok(token),
            None => self.ask().await,
        }
    }

    /// A token other than the one that was refused; `None` if the source has no other. It is asked once, however many
    /// calls come with the same token.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub(crate) async fn other_than(&self, refused: &NumberedToken) -> Result<Option<NumberedToken>, NetworkError> {
        if self.forget(refused) {
            self.ask().await?;
        }
        let mut held = self.held();
        if held.token.as_ref().is_some_and(|held| held.token == refused.token) {
            // Asking the server again would not change its mind; the next call asks the source again.
            held.token = None;
        }
        Ok(held.token.clone())
    }

    /// Drops a token that was refused, unless there was a newer one already: then false.
    pub(crate) fn forget(&self, refused: &NumberedToken) -> bool {
        let mut held = self.held();
        let is_newest = held.newest == refused.number;
        if is_newest {
            held.token = None;
        }
        is_newest
    }

    async fn ask(&self) -> Result<NumberedToken, NetworkError> {
        let token = self.source.token().await?;
        let mut held = self.held();
        if token.number > held.newest {
            held.newest = token.number;
            held.token = Some(token.clone());
        }
        Ok(token)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tokens {
    /// A token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}
