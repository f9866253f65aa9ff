//! A token and the key that it should be signed with → whom it proves.

use std::collections::BTreeMap;

use jsonwebtoken::{DecodingKey, Validation};
use serde_json::{Map, Value};
use synchrotron_core::model::UserId;

use super::Principal;
use super::error::TokenError;
use super::header::TokenHeader;
use crate::ingest::OWN_USER;
use crate::settings::{Algorithm, JwtSettings};

/// All claims of a token.
type Claims = Map<String, Value>;

/// What a token must say, beside being signed.
pub(crate) struct Checks {
    allowed: Vec<Algorithm>,
    validations: BTreeMap<Algorithm, Validation>,
    user: UserClaim,
}

impl Checks {
    pub(crate) fn new(settings: &JwtSettings) -> Self {
        let allowed = settings.allowed_algorithms();
        let validations = allowed.iter().map(|algorithm| (*algorithm, validation(*algorithm, settings))).collect();
        Self { allowed, validations, user: UserClaim::new(&settings.user_claim) }
    }

    /// The algorithms that are accepted.
    pub(crate) fn allowed(&self) -> &[Algorithm] {
        &self.allowed
    }

    /// The user of a token, if `key` signed it and it says what it must.
    ///
    /// # Errors
    /// [`TokenError`], naming what does not hold.
    pub(crate) fn principal(
        &self,
        token: &str,
        header: &TokenHeader,
        key: &DecodingKey,
    ) -> Result<Principal, TokenError> {
        let validation = self.validations.get(&header.algorithm).expect("BUG: only allowed algorithms are read");
        let claims = jsonwebtoken::decode::<Claims>(token, key, validation)?.claims;
        Ok(Principal { user_id: self.user.read(&claims)?, expires_at: Some(expiry(&claims)?) })
    }
}

fn validation(algorithm: Algorithm, settings: &JwtSettings) -> Validation {
    let mut validation = Validation::new(signature_of(algorithm));
    validation.leeway = settings.leeway_seconds;
    validation.validate_nbf = true;
    validation.validate_aud = settings.audience.is_some();
    if let Some(issuer) = &settings.issuer {
        validation.set_issuer(&[issuer]);
        validation.required_spec_claims.insert("iss".to_owned());
    }
    if let Some(audience) = &settings.audience {
        validation.set_audience(&[audience]);
        validation.required_spec_claims.insert("aud".to_owned());
    }
    validation
}

/// `exp` is a number, and may have a fraction (RFC 7519, section 2).
fn expiry(claims: &Claims) -> Result<i64, TokenError> {
    let exp = claims.get("exp").ok_or_else(|| TokenError::Missing { claim: "exp".to_owned() })?;
    let malformed = || TokenError::ClaimFormat { claim: "exp".to_owned() };
    #[expect(clippy::cast_possible_truncation, reason = "whole seconds are meant; what is beyond i64 is its end")]
    let whole = |seconds: f64| seconds as i64;
    exp.as_i64().or_else(|| exp.as_f64().map(whole)).ok_or_else(malformed)
}

/// Where a token names its user.
struct UserClaim {
    name: String,
    path: Vec<String>,
}

impl UserClaim {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), path: path(name).into_iter().map(str::to_owned).collect() }
    }

    fn read(&self, claims: &Claims) -> Result<UserId, TokenError> {
        let claim = || self.name.clone();
        let (first, deeper) = self.path.split_first().expect("BUG: a path has a first name");
        match deeper.iter().fold(claims.get(first), |value, name| value?.get(name)) {
            Some(Value::String(user)) if user == OWN_USER => Err(TokenError::Reserved { claim: claim() }),
            Some(Value::String(user)) => UserId::new(user).map_err(|error| TokenError::User { claim: claim(), error }),
            Some(_) => Err(TokenError::ClaimFormat { claim: claim() }),
            None => Err(TokenError::Missing { claim: claim() }),
        }
    }
}

/// The names that lead to a claim. Dots lead into objects, unless the name is a URI: those are names as a whole (RFC
/// 7519, section 4.2).
pub(crate) fn path(claim: &str) -> Vec<&str> {
    if claim.contains("://") { vec![claim] } else { claim.split('.').collect() }
}

/// The same algorithm, as the library names it.
pub(crate) const fn signature_of(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
    match algorithm {
        Algorithm::Hs256 => jsonwebtoken::Algorithm::HS256,
        Algorithm::Rs256 => jsonwebtoken::Algorithm::RS256,
        Algorithm::Rs384 => jsonwebtoken::Algorithm::RS384,
        Algorithm::Rs512 => jsonwebtoken::Algorithm::RS512,
        Algorithm::Ps256 => jsonwebtoken::Algorithm::PS256,
        Algorithm::Ps384 => jsonwebtoken::Algorithm::PS384,
        Algorithm::Ps512 => jsonwebtoken::Algorithm::PS512,
        Algorithm::Es256 => jsonwebtoken::Algorithm::ES256,
        Algorithm::Es384 => jsonwebtoken::Algorithm::ES384,
        Algorithm::EdDsa => jsonwebtoken::Algorithm::EdDSA,
    }
}
