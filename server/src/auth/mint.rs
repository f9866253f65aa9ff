//! Tokens of our own: for operators who try things, and for tests. Devices get theirs from whoever knows the users.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Map, Value, json};
use synchrotron_core::model::UserId;

use crate::settings::JwtSettings;

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

/// A token that a server with these settings takes: of its issuer, for its audience.
///
/// # Errors
/// [`MintError`] if the settings have no secret to sign with.
pub fn mint_for(settings: &JwtSettings, user: &UserId, ttl: Duration) -> Result<String, MintError> {
    let secret = settings.secret.as_ref().ok_or(MintError::NoSecret)?;
    if !settings.allowed_algorithms().iter().any(|algorithm| algorithm.is_symmetric()) {
        return Err(MintError::NotAllowed);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("BUG: the clock is before 1970");
    let mut claims = Map::from_iter([
        ("sub".to_owned(), json!(user.as_str())),
        ("iat".to_owned(), json!(now.as_secs())),
        ("exp".to_owned(), json!(now.saturating_add(ttl).as_secs())),
    ]);
    let named =
        |name: &str, value: &Option<String>| value.as_ref().map(|value| (name.to_owned(), Value::from(value.as_str())));
    claims.extend(named("iss", &settings.issuer));
    claims.extend(named("aud", &settings.audience));
    let signed = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes()));
    Ok(signed.expect("BUG: any bytes sign any claims by HMAC"))
}
