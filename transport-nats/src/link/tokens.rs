//! The tokens of one connection: asked for once per attempt to connect, and when the one in use expires.
//!
//! # Invariants
//! - The source is asked by one call at a time: an attempt that gave up leaves its question to the next one.
//! - Nothing is believed of a token here; its expiry is read only to ask for the next one in time.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde::Deserialize;
use synchrotron_core::network::{NetworkError, TokenSource};

use super::told::Told;

type Asking = Shared<BoxFuture<'static, Result<Arc<str>, NetworkError>>>;

pub(super) struct Tokens {
    source: Arc<dyn TokenSource>,
    asking: Mutex<Option<Asking>>,
    expires: Mutex<Option<SystemTime>>,
    told: Arc<Told>,
}

impl Tokens {
    pub(super) fn new(source: Arc<dyn TokenSource>, told: Arc<Told>) -> Self {
        Self { source, asking: Mutex::default(), expires: Mutex::default(), told }
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
        let mut asking = lock(&self.asking);
        let ask = || {
            let source = Arc::clone(&self.source);
            async move { source.token().await.map(Arc::from) }.boxed().shared()
        };
        asking.get_or_insert_with(ask).clone()
    }

    /// When the token in use expires, if it says so.
    pub(super) fn expires(&self) -> Option<SystemTime> {
        *lock(&self.expires)
    }
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
    use super::*;

    #[test]
    fn an_expiry_is_read_where_there_is_one() {
        let token = |claims: &str| format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims));
        assert_eq!(expiry_of(&token(r#"{"exp":7}"#)), Some(UNIX_EPOCH + Duration::from_secs(7)));
        for without in [token("{}"), token(r#"{"exp":"7"}"#), "opaque".to_owned(), String::new(), "a.!.b".to_owned()] {
            assert_eq!(expiry_of(&without), None, "{without}");
        }
    }
}
