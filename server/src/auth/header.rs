//! What a token says of itself, before any of it is believed: which algorithm, which key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::error::TokenError;
use crate::settings::Algorithm;

/// Longer tokens are not read: what identifies a user takes some hundred bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// The part of a token's header that chooses the key to verify with.
#[derive(Debug)]
pub(crate) struct TokenHeader {
    /// One of those allowed.
    pub(crate) algorithm: Algorithm,
    /// The name of the key, if the token gives one.
    pub(crate) key_id: Option<String>,
}

/// Other fields (`jku`, `jwk`, `x5u` and their kin) offer keys of the sender's choice: they are never read.
#[derive(Deserialize)]
struct Fields {
    alg: Option<String>,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
}

impl TokenHeader {
    /// Reads the header of a token.
    ///
    /// # Errors
    /// [`TokenError`] if there is none, its algorithm is none of `allowed`, or it demands what is not understood.
    pub(crate) fn read(token: &str, allowed: &[Algorithm]) -> Result<Self, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong { actual: token.len(), max: TOKEN_BYTES_MAX });
        }
        let (encoded, _) = token.split_once('.').ok_or(TokenError::Malformed)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Malformed)?;
        let fields: Fields = serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)?;
        if fields.crit {
            return Err(TokenError::Critical);
        }
        let named = fields.alg.and_then(|name| name.parse().ok());
        let algorithm = named
            .filter(|algorithm| allowed.contains(algorithm))
            .ok_or_else(|| TokenError::Algorithm { allowed: allowed.to_vec() })?;
        Ok(Self { algorithm, key_id: fields.kid })
    }
}

/// Whatever the field holds, null too.
fn is_there<'de, D: Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(field).map(|_| true)
}
