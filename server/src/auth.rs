//! Bytes of a bearer token → the user that the connection proves.
//!
//! Place in the journey: before everything that the server does for anyone. What a payload says about users is never
//! read; what comes out of here is the only identity there is.
//!
//! # Invariants
//! - Only HS256 is accepted, whatever a token's header asks for; `none` is not an algorithm.
//! - A token without `exp` or `sub` proves nothing.
//!
//! Tests: the table below; through the services in `tests/`.

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use synchrotron_core::model::UserId;
use synchrotron_core::wire::{Fault, FaultCode};

use crate::metrics::{AuthRefusal, METRICS};

/// Who a connection proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The user.
    pub user_id: UserId,
    /// Until when the proof holds, in Unix seconds; `None` for one that the process vouches for itself.
    pub expires_at: Option<i64>,
}

/// Verifies tokens against one shared secret.
#[derive(Clone)]
pub struct TokenVerifier {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for TokenVerifier {
    /// The key is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenVerifier").field("key", &"…").field("validation", &self.validation).finish()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
}

/// Seconds that clocks of the issuer and of this machine may be apart, unless told otherwise.
const LEEWAY_SECONDS: u64 = 30;

impl TokenVerifier {
    /// Accepts tokens that were signed with this secret by HMAC-SHA256, for any audience and from any issuer.
    #[must_use]
    pub fn hs256(secret: &[u8]) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.validate_aud = false;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Self { key: DecodingKey::from_secret(secret), validation }
    }

    /// Accepts only tokens of this issuer (`iss`).
    #[must_use]
    pub fn with_issuer(mut self, issuer: impl Into<String>) -> Self {
        self.validation.set_issuer(&[issuer.into()]);
        self.validation.required_spec_claims.insert("iss".to_owned());
        self
    }

    /// Accepts only tokens made for this audience (`aud`; nothing to do with who may see a row).
    #[must_use]
    pub fn with_audience(mut self, audience: impl Into<String>) -> Self {
        self.validation.validate_aud = true;
        self.validation.set_audience(&[audience.into()]);
        self.validation.required_spec_claims.insert("aud".to_owned());
        self
    }

    /// How far apart the clocks of the issuer and of this machine may be.
    #[must_use]
    pub fn with_leeway_seconds(mut self, seconds: u64) -> Self {
        self.validation.leeway = seconds;
        self
    }

    /// The user that the token proves.
    ///
    /// # Errors
    /// [`FaultCode::Unauthenticated`], naming what is wrong with the token but nothing of its content.
    pub fn verify(&self, token: &str) -> Result<Principal, Fault> {
        let refused = |fact: &str| Fault::new(FaultCode::Unauthenticated, fact);
        let claims = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation)
            .inspect_err(|error| METRICS.auth_refused(refusal_of(error.kind())))
            .map_err(|error| refused(&fact_of(error.kind())))?
            .claims;
        let user_id = UserId::new(claims.sub)
            .inspect_err(|_| METRICS.auth_refused(AuthRefusal::BadToken))
            .map_err(|error| refused(&format!("token's sub is no user id: {error}")))?;
        Ok(Principal { user_id, expires_at: Some(claims.exp) })
    }
}

const fn refusal_of(kind: &ErrorKind) -> AuthRefusal {
    match kind {
        ErrorKind::ExpiredSignature => AuthRefusal::Expired,
        _ => AuthRefusal::BadToken,
    }
}

/// What is wrong with a token, without quoting it.
fn fact_of(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "token is expired".to_owned(),
        ErrorKind::ImmatureSignature => "token is not valid yet".to_owned(),
        ErrorKind::InvalidSignature => "token has a bad signature".to_owned(),
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            "token's algorithm is not allowed: HS256 is".to_owned()
        }
        ErrorKind::MissingAlgorithm => "token names no algorithm".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("token has no {claim}"),
        ErrorKind::InvalidClaimFormat(claim) => format!("token's {claim} is malformed"),
        ErrorKind::InvalidIssuer => "token is of another issuer".to_owned(),
        ErrorKind::InvalidAudience => "token is for another audience".to_owned(),
        ErrorKind::Json(error) if error.to_string().contains("missing field `sub`") => "token has no sub".to_owned(),
        ErrorKind::Json(error) if error.to_string().contains("missing field `exp`") => "token has no exp".to_owned(),
        // `alg: none` fails here: it is not among the names that the header may hold.
        ErrorKind::Json(error) if error.to_string().contains("unknown variant") => {
            "token's algorithm is not allowed: HS256 is".to_owned()
        }
        _ => "token is malformed".to_owned(),
    }
}
