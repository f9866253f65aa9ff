//! Whose tokens are believed, and which of their claims names the user.
//!
//! Place in the journey: read once, at start; [`TokenVerifier`](crate::auth::TokenVerifier) is what it becomes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{Secret, SettingsError};

/// How tokens are verified: by a shared secret, by the public keys of an issuer, or by either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JwtSettings {
    /// The secret shared with whoever signs tokens (HS256).
    pub secret: Option<Secret>,
    /// Where the issuer publishes its public keys (a JWKS).
    pub jwks_url: Option<Url>,
    /// The only issuer that is believed (`iss`), if set.
    pub issuer: Option<String>,
    /// The only audience that tokens may be made for (`aud`), if set.
    pub audience: Option<String>,
    /// How far apart the clocks of issuer and server may be.
    pub leeway_seconds: u64,
    /// The algorithms that are accepted. Empty means HS256 if there is a secret, and RS256, ES256 and EdDSA if there are
    /// public keys.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the user. Dots lead into objects (`app_metadata.user`), unless the name is a URI
    /// (`https://example.com/user`).
    pub user_claim: String,
}

/// How a token may be signed. HS256 verifies with the shared secret and nothing else, all others with public keys and
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Algorithm {
    /// HMAC with SHA-256.
    Hs256,
    /// RSA, PKCS #1 v1.5, with SHA-256.
    Rs256,
    /// RSA, PKCS #1 v1.5, with SHA-384.
    Rs384,
    /// RSA, PKCS #1 v1.5, with SHA-512.
    Rs512,
    /// RSA, PSS, with SHA-256.
    Ps256,
    /// RSA, PSS, with SHA-384.
    Ps384,
    /// RSA, PSS, with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// A name that is not one of an [`Algorithm`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is no algorithm that tokens are verified with")]
pub struct UnknownAlgorithm {
    /// The name.
    pub name: String,
}

/// Shorter secrets can be guessed offline from one token.
const SECRET_BYTES_MIN: usize = 16;
/// Clocks that are further apart need another remedy.
const LEEWAY_SECONDS_MAX: u64 = 600;

impl Default for JwtSettings {
    fn default() -> Self {
        Self {
            secret: None,
            jwks_url: None,
            issuer: None,
            audience: None,
            leeway_seconds: 30,
            algorithms: Vec::new(),
            user_claim: "sub".to_owned(),
        }
    }
}

impl JwtSettings {
    /// Tokens that were signed with this secret, of any issuer and for any audience.
    #[must_use]
    pub fn with_secret(secret: impl Into<Vec<u8>>) -> Self {
        Self { secret: Some(Secret::new(secret)), ..Self::default() }
    }

    /// Tokens that were signed with a key of this set, of any issuer and for any audience.
    #[must_use]
    pub fn with_jwks(jwks_url: Url) -> Self {
        Self { jwks_url: Some(jwks_url), ..Self::default() }
    }

    /// The algorithms that are accepted, defaults included.
    #[must_use]
    pub fn allowed_algorithms(&self) -> Vec<Algorithm> {
        if !self.algorithms.is_empty() {
            return self.algorithms.clone();
        }
        let by_secret = self.secret.iter().map(|_| Algorithm::Hs256);
        let by_keys = self.jwks_url.iter().flat_map(|_| [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
        by_secret.chain(by_keys).collect()
    }

    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        if self.secret.is_none() && self.jwks_url.is_none() {
            return Err(SettingsError::NoTokenKeys);
        }
        if let Some(actual) = self.secret.as_ref().map(|secret| secret.as_bytes().len())
            && actual < SECRET_BYTES_MIN
        {
            return Err(SettingsError::SecretTooShort { actual, min: SECRET_BYTES_MIN });
        }
        if let Some(fact) = self.jwks_url.as_ref().and_then(unusable) {
            return Err(SettingsError::JwksUrl { fact });
        }
        if self.leeway_seconds > LEEWAY_SECONDS_MAX {
            let (setting, actual) = ("leeway_seconds", self.leeway_seconds);
            return Err(SettingsError::TooLarge { setting, actual, max: LEEWAY_SECONDS_MAX });
        }
        if self.user_claim.is_empty() {
            return Err(SettingsError::UserClaim);
        }
        self.validate_algorithms()
    }

    /// Each algorithm has keys, and each kind of key an algorithm: what is set and does nothing is a mistake.
    fn validate_algorithms(&self) -> Result<(), SettingsError> {
        let allowed = self.allowed_algorithms();
        for (given, is_given, is_of) in [
            ("a secret", self.secret.is_some(), Algorithm::is_symmetric as fn(Algorithm) -> bool),
            ("the URL of a key set", self.jwks_url.is_some(), |algorithm| !algorithm.is_symmetric()),
        ] {
            match allowed.iter().copied().find(|algorithm| is_of(*algorithm)) {
                Some(algorithm) if !is_given => {
                    return Err(SettingsError::AlgorithmWithoutKeys { algorithm, missing: given });
                }
                None if is_given => return Err(SettingsError::KeysWithoutAlgorithm { given }),
                Some(_) | None => {}
            }
        }
        Ok(())
    }
}

/// Why no key set can be fetched from there.
fn unusable(url: &Url) -> Option<&'static str> {
    if !matches!(url.scheme(), "http" | "https") {
        return Some("is neither http nor https");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Some("holds a user or a password: public keys need none");
    }
    None
}

impl Algorithm {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::Hs256, "HS256"),
        (Self::Rs256, "RS256"),
        (Self::Rs384, "RS384"),
        (Self::Rs512, "RS512"),
        (Self::Ps256, "PS256"),
        (Self::Ps384, "PS384"),
        (Self::Ps512, "PS512"),
        (Self::Es256, "ES256"),
        (Self::Es384, "ES384"),
        (Self::EdDsa, "EdDSA"),
    ];

    /// Its name in the header of a token.
    #[must_use]
    pub fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(algorithm, _)| *algorithm == self);
        named.expect("BUG: every algorithm has a name").1
    }

    /// Whether who verifies could also sign.
    #[must_use]
    pub const fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256)
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(name: &str) -> Result<Self, UnknownAlgorithm> {
        let named = Self::NAMES.iter().find(|(_, known)| *known == name);
        named.map(|(algorithm, _)| *algorithm).ok_or_else(|| UnknownAlgorithm { name: name.to_owned() })
    }
}

impl TryFrom<String> for Algorithm {
    type Error = UnknownAlgorithm;

    fn try_from(name: String) -> Result<Self, UnknownAlgorithm> {
        name.parse()
    }
}

impl From<Algorithm> for &'static str {
    fn from(algorithm: Algorithm) -> Self {
        algorithm.name()
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn jwks(url: &str) -> JwtSettings {
        JwtSettings::with_jwks(url.parse().expect("a URL"))
    }

    #[test]
    fn settings_are_read_with_their_defaults() {
        let read = |value| serde_json::from_value::<JwtSettings>(value);
        let settings = read(json!({ "secret": "0123456789abcdef", "algorithms": ["HS256"] })).expect("reads");
        let expected =
            JwtSettings { algorithms: vec![Algorithm::Hs256], ..JwtSettings::with_secret("0123456789abcdef") };
        assert_eq!(settings, expected);
        assert!(!format!("{settings:?}").contains("0123"));
        let settings = read(json!({ "jwks_url": "https://h/keys", "user_claim": "app_metadata.user" })).expect("reads");
        assert_eq!(settings.allowed_algorithms(), [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]);
        assert!(read(json!({ "secrets": "0123456789abcdef" })).is_err());
        assert!(read(json!({ "algorithms": ["none"] })).expect_err("unsafe").to_string().contains("\"none\""));
    }

    #[test]
    fn what_cannot_verify_is_named() {
        let error = |settings: JwtSettings| settings.validate().expect_err("cannot work");
        let long_enough = JwtSettings::with_secret("0123456789abcdef");
        long_enough.validate().expect("valid");
        jwks("http://kong:8000/keys").validate().expect("valid");
        assert_eq!(error(JwtSettings::default()), SettingsError::NoTokenKeys);
        assert!(matches!(error(jwks("file:///keys")), SettingsError::JwksUrl { .. }));
        assert!(matches!(error(jwks("https://u:p@h/keys")), SettingsError::JwksUrl { .. }));
        assert!(matches!(
            error(JwtSettings { leeway_seconds: 601, ..long_enough.clone() }),
            SettingsError::TooLarge { .. }
        ));
        assert_eq!(error(JwtSettings { user_claim: String::new(), ..long_enough.clone() }), SettingsError::UserClaim);
        let algorithms = vec![Algorithm::Hs256, Algorithm::Es384];
        assert!(matches!(
            error(JwtSettings { algorithms: algorithms.clone(), ..long_enough.clone() }),
            SettingsError::AlgorithmWithoutKeys { algorithm: Algorithm::Es384, .. }
        ));
        assert!(matches!(
            error(JwtSettings { algorithms, ..jwks("https://h/keys") }),
            SettingsError::AlgorithmWithoutKeys { algorithm: Algorithm::Hs256, .. }
        ));
        let unused =
            JwtSettings { algorithms: vec![Algorithm::Rs256], secret: long_enough.secret, ..jwks("https://h") };
        assert!(matches!(error(unused), SettingsError::KeysWithoutAlgorithm { given: "a secret" }));
    }
}
