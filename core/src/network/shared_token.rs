//! One source of tokens for all calls of a transport.
//!
//! Place in the journey: between a transport and the app's [`TokenSource`], which may take its time, or never answer; and
//! whoever waits for it may be polled rarely, like a stream of events.
//!
//! # Invariants
//! - The source is asked by one call at a time, in a task of its own, for so long at most. No lock is held across a wait.
//! - A question whose callers all gave up is left to the next one.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::{Carrier, NetworkError, TokenSource};

type Asking = Shared<BoxFuture<'static, Result<NumberedToken, NetworkError>>>;

/// A token, and the number of the question that brought it: later ones have larger numbers, from 1 on.
#[derive(Clone)]
pub struct NumberedToken {
    /// The token.
    pub token: Arc<str>,
    /// The question's number.
    pub number: u64,
}

impl fmt::Debug for NumberedToken {
    /// A token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NumberedToken").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A source that many calls of one transport share.
#[derive(Debug)]
pub struct SharedTokenSource {
    source: Arc<dyn TokenSource>,
    carrier: Carrier,
    within: Duration,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    /// How often the source was asked.
    questions: u64,
    /// The question that is under way, or was answered to nobody.
    asking: Option<Asking>,
}

impl SharedTokenSource {
    /// A source that may take so long for an answer.
    #[must_use]
    pub fn new(source: Arc<dyn TokenSource>, carrier: Carrier, within: Duration) -> Self {
        Self { source, carrier, within, asked: Mutex::default() }
    }

    /// What the source says now: to the question that is under way, or to a new one.
    ///
    /// # Errors
    /// The source's own; [`NetworkError::Token`] if it panicked, [`NetworkError::Timeout`] if it is late.
    pub async fn token(&self) -> Result<NumberedToken, NetworkError> {
        let asking = self.ask();
        let answer = asking.clone().await;
        let mut asked = self.asked();
        if asked.asking.as_ref().is_some_and(|other| other.ptr_eq(&asking)) {
            asked.asking = None;
        }
        answer
    }

    fn ask(&self) -> Asking {
        let mut asked = self.asked();
        if let Some(asking) = &asked.asking {
            return asking.clone();
        }
        asked.questions += 1;
        let (number, within) = (asked.questions, self.within);
        let answer = tokio::spawn(answer(Arc::clone(&self.source), self.carrier, within));
        let numbered = move |token: String| NumberedToken { token: token.into(), number };
        let asking = answer
            .map(move |answer| answer.unwrap_or_else(|ended| Err(NetworkError::Token(ended.to_string()))).map(numbered))
            .boxed()
            .shared();
        asked.asking.insert(asking).clone()
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the app's callback says in time. Its panic is its own.
async fn answer(source: Arc<dyn TokenSource>, carrier: Carrier, within: Duration) -> Result<String, NetworkError> {
    let asked = AssertUnwindSafe(tokio::time::timeout(within, source.token())).catch_unwind().await;
    let panicked = |_| NetworkError::Token("the app's source of tokens panicked".to_owned());
    asked.map_err(panicked)?.unwrap_or_else(|_late| {
        let after_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        Err(NetworkError::Timeout { carrier, call: "token", after_ms })
    })
}
