//! A key set, parsed: which key may verify which tokens.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{DecodingKey, DecodingKeyKind};
use serde::Deserialize;
use serde_json::Value;

use super::fetch::FetchError;
use crate::auth::claims::signature_of;
use crate::auth::error::TokenError;
use crate::auth::header::TokenHeader;
use crate::settings::Algorithm;

/// Shorter RSA keys are not safe (RFC 7518, section 3.3).
const RSA_BYTES_MIN: usize = 2048 / 8;
const RSA: [Algorithm; 6] =
    [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512];

/// The public keys of an issuer at one moment.
pub(crate) struct KeySet {
    keys: Vec<PublicKey>,
}

struct PublicKey {
    id: Option<String>,
    suits: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Published {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a published set. Keys that verify no tokens here are left out: those for encryption, of other kinds, with
    /// shared secrets, or too weak. One that cannot be read is not the others' fault.
    pub(super) fn parse(bytes: &[u8], keys_max: usize) -> Result<Self, FetchError> {
        let published: Published = serde_json::from_slice(bytes)
            .map_err(|error| FetchError::NoKeySet { line: error.line(), column: error.column() })?;
        let actual = published.keys.len();
        if actual > keys_max {
            return Err(FetchError::TooManyKeys { actual, max: keys_max });
        }
        Ok(Self { keys: published.keys.into_iter().filter_map(PublicKey::parse).collect() })
    }

    /// How many keys it has that could verify a token.
    pub(crate) const fn len(&self) -> usize {
        self.keys.len()
    }

    /// The keys that a token with this header may be signed with: those that it names, or the only one that suits.
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] if there is none, [`TokenError::AmbiguousKey`] if it names none and several suit.
    pub(crate) fn candidates(&self, header: &TokenHeader) -> Result<Vec<&DecodingKey>, TokenError> {
        let named = |key: &&PublicKey| header.key_id.is_none() || key.id == header.key_id;
        let suiting = self.keys.iter().filter(named).filter(|key| key.suits.contains(&header.algorithm));
        let candidates: Vec<_> = suiting.map(|key| &key.key).collect();
        match candidates.len() {
            0 => Err(TokenError::UnknownKey),
            1 => Ok(candidates),
            _ if header.key_id.is_some() => Ok(candidates),
            count => Err(TokenError::AmbiguousKey { candidates: count }),
        }
    }
}

impl PublicKey {
    fn parse(published: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(published).ok()?;
        let suits = suited(&jwk);
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        if let DecodingKeyKind::RsaModulusExponent { n, .. } = key.kind()
            && n.iter().skip_while(|byte| **byte == 0).count() < RSA_BYTES_MIN
        {
            tracing::warn!(key_id = ?jwk.common.key_id, "an RSA key of the issuer is too short to be believed");
            return None;
        }
        (!suits.is_empty()).then_some(Self { id: jwk.common.key_id, suits, key })
    }
}

/// The algorithms that a key may be used with: those of its kind, or the one that it names.
fn suited(jwk: &Jwk) -> Vec<Algorithm> {
    let of_its_kind: &[Algorithm] = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => &RSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => &[Algorithm::Es256],
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => &[Algorithm::Es384],
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDsa],
        _ => &[],
    };
    let signs = jwk.common.public_key_use.as_ref().is_none_or(|meant| *meant == PublicKeyUse::Signature);
    let verifies = jwk.common.key_operations.as_ref().is_none_or(|may| may.contains(&KeyOperations::Verify));
    let named = |algorithm: &Algorithm| {
        let this = KeyAlgorithm::from(signature_of(*algorithm));
        jwk.common.key_algorithm.is_none_or(|only| only == this)
    };
    of_its_kind.iter().copied().filter(|algorithm| signs && verifies && named(algorithm)).collect()
}
