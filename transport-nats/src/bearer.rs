//! The token on a message: how it travels, and which one a client presents.
//!
//! Place in the journey: on every request and upload. Who sends is proved by each message, not by the connection.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::{HeaderMap, HeaderValue};
use synchrotron_core::network::{NetworkError, TokenSource};

/// The header that holds the token.
pub const AUTHORIZATION: &str = "Authorization";
/// Stands before the token in the header.
pub const BEARER: &str = "Bearer ";

/// The token that a message carries.
#[must_use]
pub fn bearer_of(headers: Option<&HeaderMap>) -> Option<&str> {
    headers?.get(AUTHORIZATION)?.as_str().strip_prefix(BEARER)
}

/// Headers with the token.
///
/// # Errors
/// [`NetworkError::Token`] if no header can hold it.
pub fn bearer_headers(token: &str) -> Result<HeaderMap, NetworkError> {
    let unfit = |_| NetworkError::Token("it holds characters that no header can".to_owned());
    let value: HeaderValue = format!("{BEARER}{token}").parse().map_err(unfit)?;
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, value);
    Ok(headers)
}

/// One token, until the server refuses it or the connection is another one.
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    token: Arc<str>,
    /// The connection that it was asked for.
    connects: u64,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self { source, held: Mutex::new(None) }
    }

    /// The token to present on this connection.
    pub(crate) async fn token(&self, connects: u64) -> Result<Arc<str>, NetworkError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match held {
            Some(held) if held.connects == connects => Ok(held.token),
            _ => self.ask(connects).await,
        }
    }

    /// A token other than the one that was refused; `None` if the source has no other.
    pub(crate) async fn other_than(&self, refused: &Arc<str>, connects: u64) -> Result<Option<Arc<str>>, NetworkError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(held) = held
            && held.token != *refused
        {
            return Ok(Some(held.token));
        }
        let token = self.ask(connects).await?;
        if token == *refused {
            *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(None);
        }
        Ok(Some(token))
    }

    async fn ask(&self, connects: u64) -> Result<Arc<str>, NetworkError> {
        let token: Arc<str> = self.source.token().await?.into();
        let held = Held { token: Arc::clone(&token), connects };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        Ok(token)
    }
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
    fn a_token_travels_in_a_header() {
        let headers = bearer_headers("a.b.c").expect("fits");
        assert_eq!(bearer_of(Some(&headers)), Some("a.b.c"));
        assert_eq!(bearer_of(None), None);
        assert!(matches!(bearer_headers("a\r\nX: y"), Err(NetworkError::Token(_))));
    }
}
