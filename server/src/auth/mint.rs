//! Tokens of our own: for operators who try things, and for tests. Devices get theirs from whoever knows the users.

use std::time::Duration;

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use synchrotron_core::model::UserId;

use crate::clock;
use crate::settings::{JwtSettings, Secret};

/// Why no token can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// The server verifies with public keys; only their issuer signs.
    #[error("tokens are made with the secret, and none is given")]
    NoSecret,
    /// The settings allow no algorithm that a secret signs with.
    #[error("HS256 is not among the algorithms that are allowed")]
    NotAllowed,
}

/// A token that proves `user` for as long as `ttl`, signed with the secret (HS256).
#[must_use]
pub fn mint(secret: &Secret, user: &UserId, ttl: Duration) -> String {
    sign(secret, claims(user, "sub", ttl))
}

/// A token that a server with these settings takes: of its issuer, for its audience, with the user where it looks.
///
/// # Errors
/// [`MintError`] if the settings have no secret to sign with.
pub fn mint_for(settings: &JwtSettings, user: &UserId, ttl: Duration) -> Result<String, MintError> {
    let secret = settings.secret.as_ref().ok_or(MintError::NoSecret)?;
    if !settings.allowed_algorithms().iter().any(|algorithm| algorithm.is_symmetric()) {
        return Err(MintError::NotAllowed);
    }
    let mut claims = claims(user, &settings.user_claim, ttl);
    claims.extend(settings.issuer.as_ref().map(|issuer| ("iss".to_owned(), json!(issuer))));
    claims.extend(settings.audience.as_ref().map(|audience| ("aud".to_owned(), json!(audience))));
    Ok(sign(secret, claims))
}

fn claims(user: &UserId, user_claim: &str, ttl: Duration) -> Map<String, Value> {
    let now = clock::since_1970();
    let expires = now.saturating_add(ttl).as_secs();
    let path = super::claims::path(user_claim);
    let (first, deeper) = path.split_first().expect("BUG: a path has a first name");
    let value = deeper.iter().rev().fold(json!(user.as_str()), |value, name| json!({ *name: value }));
    let times = [("iat", now.as_secs()), ("exp", expires)].map(|(name, seconds)| (name.to_owned(), json!(seconds)));
    times.into_iter().chain([((*first).to_owned(), value)]).collect()
}

fn sign(secret: &Secret, claims: Map<String, Value>) -> String {
    let signed = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()));
    signed.expect("BUG: any bytes sign any claims by HMAC")
}
