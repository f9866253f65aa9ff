//! The tokens of one connection: asked for once per attempt to connect, and when the one in use expires.
//!
//! # Invariants
//! - The source is asked by one call at a time: an attempt that gave up leaves its question to the next one.
//! - The question is a task of its own, and lasts for so long at most: then the next attempt asks anew.
//! - Nothing is believed of a token here; its expiry is read only to ask for the next one in time.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde::Deserialize;
use synchrotron_core::network::{NetworkError, TokenSource};

use super::told::Told;
use crate::client::late;

type Asking = Shared<BoxFuture<'static, Result<Arc<str>, NetworkError>>>;

pub(super) struct Tokens {
    source: Arc<dyn TokenSource>,
    within: Duration,
    asking: Mutex<Option<Asking>>,
    expires: Mutex<Option<SystemTime>>,
    told: Arc<Told>,
}

impl Tokens {
    pub(super) fn new(source: Arc<dyn TokenSource>, within: Duration, told: Arc<Told>) -> Self {
        Self { source, within, asking: Mutex::default(), expires: Mutex::default(), told }
    }

    /// The token to connect with.
    pub(super) async fn next(&self) -> Result<Arc<str>, NetworkError> {
        let asking = self.ask();
        let answer = asking.await;
        *lock(&self.asking) = None;
        match &answer {
            Ok(token) => *lock(&self.expires) = expiry_of(token),
            Err(error) => self.told.refused(error.clone()),
        }
        answer
    }

    fn ask(&self) -> Asking {
        let begin = || {
            let asked = tokio::spawn(ask(Arc::clone(&self.source), self.within));
            asked
                .map(|asked| asked.unwrap_or_else(|ended| Err(NetworkError::Token(ended.to_string()))))
                .boxed()
                .shared()
        };
        lock(&self.asking).get_or_insert_with(begin).clone()
    }

    /// When the token in use expires, if it says so.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        *lock(&self.expires)
    }
}

/// What the app's callback says in time. Its panic is its own.
async fn ask(source: Arc<dyn TokenSource>, within: Duration) -> Result<Arc<str>, NetworkError> {
    let asked = AssertUnwindSafe(tokio::time::timeout(within, source.token())).catch_unwind().await;
    let panicked = |_| NetworkError::Token("the app's source of tokens panicked".to_owned());
    asked.map_err(panicked)?.unwrap_or_else(|_elapsed| Err(late("token", within))).map(Arc::from)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Deserialize)]
struct Expiring {
    exp: u32,
}

/// What a JSON Web Token says of its expiry.
fn expiry_of(token: &str) -> Option<SystemTime> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Expiring { exp } = serde_json::from_slice(&claims).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(exp.into()))
}

impl fmt::Debug for Tokens {
    /// A token is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use synchrotron_core::network::Carrier;
    use tokio::sync::Notify;

    use super::*;

    /// Answers when it is let.
    #[derive(Debug, Default)]
    struct Slow {
        asked: AtomicUsize,
        asks: Notify,
        answers: Notify,
        answered: Notify,
    }

    #[async_trait]
    impl TokenSource for Slow {
        async fn token(&self) -> Result<String, NetworkError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            self.asks.notify_one();
            self.answers.notified().await;
            self.answered.notify_one();
            Ok("token".to_owned())
        }
    }

    async fn soon<T>(waited_for: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), waited_for).await.expect("in time")
    }

    #[tokio::test]
    async fn u12_a_source_that_does_not_answer_is_given_up_in_time_and_asked_again() {
        let (source, told) = (Arc::new(Slow::default()), Arc::new(Told::new()));
        let tokens = Tokens::new(source.clone(), Duration::from_millis(50), Arc::clone(&told));
        let given_up = soon(tokens.next()).await.expect_err("no token");
        assert!(
            matches!(given_up, NetworkError::Timeout { carrier: Carrier::Nats, call: "token", after_ms: 50 }),
            "{given_up}"
        );
        assert!(told.refusal().is_some_and(|refusal| refusal.is_carrier_trouble()), "the next carrier may have one");
        source.answers.notify_one();
        assert_eq!(&*soon(tokens.next()).await.expect("a token"), "token");
        assert_eq!(source.asked.load(Ordering::SeqCst), 2);
    }

    /// Attempts to connect are given up sooner than an app may take to answer.
    #[tokio::test]
    async fn u12_a_question_whose_attempt_gave_up_is_answered_to_the_next_one() {
        let source = Arc::new(Slow::default());
        let tokens = Tokens::new(source.clone(), Duration::from_secs(3_600), Arc::new(Told::new()));
        tokio::select! {
            answer = tokens.next() => panic!("{answer:?}"),
            () = source.asks.notified() => {}
        }
        source.answers.notify_one();
        soon(source.answered.notified()).await;
        assert_eq!(&*soon(tokens.next()).await.expect("a token"), "token");
        assert_eq!(source.asked.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn an_expiry_is_read_where_there_is_one() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry_of(&token(r#"{"exp":7}"#)), Some(UNIX_EPOCH + Duration::from_secs(7)));
        for without in [token("{}"), token(r#"{"exp":"7"}"#), "opaque".to_owned(), String::new(), "a.!.b".to_owned()] {
            assert_eq!(expiry_of(&without), None, "{without}");
        }
    }
}
