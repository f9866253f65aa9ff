//! Which token a client presents: one, until the server refuses it.
//!
//! # Invariants
//! - The source is asked by one call at a time. Calls whose token was refused meanwhile take what it brought.
//! - A token that was refused is not presented again, unless the source says that it has no other.
//! - The source is asked in a task of its own, for so long at most: who waits for a token may be polled rarely, like the
//!   stream of events, and keeps nobody else waiting. No lock is held across a wait.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use synchrotron_core::network::{Carrier, NetworkError, TokenSource};

pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    within: Duration,
    held: Arc<Mutex<Held>>,
}

#[derive(Default)]
struct Held {
    token: Option<Arc<str>>,
    /// How often the source has answered.
    answers: u64,
    /// The question that is under way.
    asking: Option<Asking>,
}

type Asking = Shared<BoxFuture<'static, Result<HeldToken, NetworkError>>>;

/// A token, and which answer of the source it was.
#[derive(Clone)]
pub(crate) struct HeldToken {
    pub(crate) token: Arc<str>,
    answer: u64,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>, within: Duration) -> Self {
        Self { source, within, held: Arc::default() }
    }

    /// The token to present.
    ///
    /// # Errors
    /// [`NetworkError::Token`] if there is none and none can be had, [`NetworkError::Timeout`] if the source does not say.
    pub(crate) async fn token(&self) -> Result<HeldToken, NetworkError> {
        let asking = {
            let mut held = lock(&self.held);
            match held.current() {
                Some(token) => return Ok(token),
                None => self.ask(&mut held),
            }
        };
        asking.await
    }

    /// A token other than the one that was refused; `None` if the source has no other. It is asked once, however many
    /// calls come with the same token.
    ///
    /// # Errors
    /// As [`Self::token`].
    pub(crate) async fn other_than(&self, refused: &HeldToken) -> Result<Option<HeldToken>, NetworkError> {
        let asking = {
            let mut held = lock(&self.held);
            if held.answers == refused.answer {
                held.token = None;
                Some(self.ask(&mut held))
            } else {
                held.asking.clone()
            }
        };
        if let Some(asking) = asking {
            asking.await?;
        }
        let mut held = lock(&self.held);
        if held.token.as_ref() == Some(&refused.token) {
            // Asking the server again would not change its mind; the next call asks the source again.
            held.token = None;
        }
        Ok(held.current())
    }

    /// Drops a token that was refused, unless there is a newer one already.
    pub(crate) fn forget(&self, refused: &HeldToken) {
        let mut held = lock(&self.held);
        if held.answers == refused.answer {
            held.token = None;
        }
    }

    /// The question that is under way, or a new one.
    fn ask(&self, held: &mut Held) -> Asking {
        let begin = || {
            let (source, within, held) = (Arc::clone(&self.source), self.within, Arc::clone(&self.held));
            let answer = tokio::spawn(async move {
                let answer = ask(&*source, within).await;
                lock(&held).take(answer)
            });
            answer
                .map(|answer| answer.unwrap_or_else(|ended| Err(NetworkError::Token(ended.to_string()))))
                .boxed()
                .shared()
        };
        held.asking.get_or_insert_with(begin).clone()
    }
}

impl Held {
    fn current(&self) -> Option<HeldToken> {
        self.token.clone().map(|token| HeldToken { token, answer: self.answers })
    }

    fn take(&mut self, answer: Result<String, NetworkError>) -> Result<HeldToken, NetworkError> {
        self.asking = None;
        let token: Arc<str> = answer?.into();
        self.answers += 1;
        self.token = Some(Arc::clone(&token));
        Ok(HeldToken { token, answer: self.answers })
    }
}

/// What the app's callback says in time. Its panic is its own.
async fn ask(source: &dyn TokenSource, within: Duration) -> Result<String, NetworkError> {
    let asked = AssertUnwindSafe(tokio::time::timeout(within, source.token())).catch_unwind().await;
    let panicked = |_| NetworkError::Token("the app's source of tokens panicked".to_owned());
    asked.map_err(panicked)?.unwrap_or_else(|_elapsed| {
        let after_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Err(NetworkError::Timeout { carrier: Carrier::Http, call: "token", after_ms })
    })
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Tokens {
    /// A token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}
