//! The tokens of one connection: asked for once per attempt to connect, and when the one in use expires.
//!
//! # Invariants
//! - An attempt that gave up leaves its question to the next one ([`SharedTokenSource`]).
//! - Nothing is believed of a token here; its expiry is read only to ask for the next one in time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use synchrotron_core::network::{Carrier, NetworkError, SharedTokenSource, TokenSource};

use super::told::Told;

pub(super) struct Tokens {
    source: SharedTokenSource,
    expires: Mutex<Option<SystemTime>>,
    told: Arc<Told>,
}

impl Tokens {
    pub(super) fn new(source: Arc<dyn TokenSource>, within: Duration, told: Arc<Told>) -> Self {
        Self { source: SharedTokenSource::new(source, Carrier::Nats, within), expires: Mutex::default(), told }
    }

    /// The token to connect with.
    pub(super) async fn next(&self) -> Result<Arc<str>, NetworkError> {
        let answer = self.source.token().await.map(|answer| answer.token);
        match &answer {
            Ok(token) => *self.expires.lock().unwrap_or_else(PoisonError::into_inner) = expiry_of(token),
            Err(error) => self.told.refused(error.clone()),
        }
        answer
    }

    /// When the token in use expires, if it says so.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        *self.expires.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
