//! Bytes of a bearer token → the user that the connection proves.
//!
//! Place in the journey: before everything that the server does for anyone. What a payload says about users is never
//! read; what comes out of here is the only identity there is. `header` reads what a token says of itself, which
//! chooses a key: the shared secret, or one that the issuer publishes (`jwks`). `claims` verifies with that key and
//! reads the user. [`mint()`] makes tokens, for operators and tests.
//!
//! # Invariants
//! - Only allowed algorithms verify: HS256 with the secret and never with a public key, the others with public keys and
//!   never with the secret. `none` is not an algorithm.
//! - A token without `exp` or without a user proves nothing.
//! - Nothing of a token is believed before its signature is verified, except which key to try.
//! - A token that cannot be judged, because keys cannot be had, is neither refused nor served.
//!
//! Tests: `tests/http`, against a key server on a real socket.

mod claims;
mod error;
mod header;
mod jwks;
mod mint;

use std::fmt;

use jsonwebtoken::DecodingKey;
use synchrotron_core::model::UserId;
use synchrotron_core::wire::Fault;

pub use jwks::{JwksLimits, VerifierError};
pub use mint::{MintError, mint, mint_for};

use self::claims::Checks;
use self::error::TokenError;
use self::header::TokenHeader;
use self::jwks::{Jwks, KeySet};
use crate::metrics::{AuthRefusal, METRICS};
use crate::settings::JwtSettings;

/// Who a connection proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user_id: UserId,
    /// Until when the proof holds, in Unix seconds; `None` for one that the process vouches for itself.
    pub expires_at: Option<i64>,
}

/// Verifies tokens. While it lives it keeps the issuer's public keys, if there is a key set to fetch.
pub struct TokenVerifier {
    secret: Option<DecodingKey>,
    jwks: Option<Jwks>,
    checks: Checks,
}

impl TokenVerifier {
    /// A verifier of tokens as these settings want them. With a key set it must be made within a tokio runtime, and
    /// begins to fetch at once.
    ///
    /// # Errors
    /// [`VerifierError`] if this machine has no certificates to fetch a key set with.
    pub fn new(settings: &JwtSettings) -> Result<Self, VerifierError> {
        Self::with_limits(settings, JwksLimits::default())
    }

    /// The same with other bounds on fetching.
    ///
    /// # Errors
    /// As [`TokenVerifier::new`].
    pub fn with_limits(settings: &JwtSettings, limits: JwksLimits) -> Result<Self, VerifierError> {
        let secret = settings.secret.as_ref().map(|secret| DecodingKey::from_secret(secret.as_bytes()));
        let jwks = settings.jwks_url.as_ref().map(|url| Jwks::start(url.clone(), limits)).transpose()?;
        Ok(Self { secret, jwks, checks: Checks::new(settings) })
    }

    /// The user that the token proves.
    ///
    /// # Errors
    /// [`FaultCode::Unauthenticated`](synchrotron_core::wire::FaultCode::Unauthenticated), naming what is wrong with the
    /// token but nothing of its content; [`FaultCode::Unavailable`](synchrotron_core::wire::FaultCode::Unavailable) if
    /// the issuer's keys cannot be had, so that nobody can say.
    pub async fn verify(&self, token: &str) -> Result<Principal, Fault> {
        self.judge(token).await.inspect_err(count).map_err(Fault::from)
    }

    async fn judge(&self, token: &str) -> Result<Principal, TokenError> {
        let header = TokenHeader::read(token, self.checks.allowed())?;
        match (&self.secret, &self.jwks) {
            (Some(secret), _) if header.algorithm.is_symmetric() => self.checks.principal(token, &header, secret),
            (_, Some(jwks)) if !header.algorithm.is_symmetric() => self.judge_by_keys(token, &header, jwks).await,
            _ => Err(TokenError::Algorithm { allowed: self.checks.allowed().to_vec() }),
        }
    }

    /// Judges by the keys that are known, and once more by newer ones if those could make a difference.
    async fn judge_by_keys(&self, token: &str, header: &TokenHeader, jwks: &Jwks) -> Result<Principal, TokenError> {
        let known = jwks.keys().await?;
        match self.by_keys(token, header, &known) {
            Err(error) if error.is_of_the_key() => match jwks.newer_than(&known).await? {
                Some(newer) => self.by_keys(token, header, &newer),
                None => Err(error),
            },
            judged => judged,
        }
    }

    /// Several keys of one id are tried one after the other; a signature is of one of them.
    fn by_keys(&self, token: &str, header: &TokenHeader, keys: &KeySet) -> Result<Principal, TokenError> {
        let mut judged = Err(TokenError::UnknownKey);
        for key in keys.candidates(header)? {
            judged = self.checks.principal(token, header, key);
            if !matches!(judged, Err(TokenError::BadSignature)) {
                break;
            }
        }
        judged
    }
}

/// Counts a refusal; a token that cannot be judged is none.
fn count(error: &TokenError) {
    match error {
        TokenError::KeysUnavailable => {}
        TokenError::Expired => METRICS.auth_refused(AuthRefusal::Expired),
        _ => METRICS.auth_refused(AuthRefusal::BadToken),
    }
}

impl fmt::Debug for TokenVerifier {
    /// The secret stays one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier")
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .field("jwks", &self.jwks)
            .field("allowed", &self.checks.allowed())
            .finish_non_exhaustive()
    }
}
