//! Why a token proves nobody.

use jsonwebtoken::errors::ErrorKind;
use synchrotron_core::model::IdError;
use synchrotron_core::wire::{Fault, FaultCode};

use crate::settings::Algorithm;

/// What is wrong with a token, or keeps it from being judged. Nothing of its content is quoted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("token has {actual} bytes, at most {max} are read")]
    TooLong { actual: usize, max: usize },
    #[error("token is malformed")]
    Malformed,
    #[error("token's algorithm is not allowed: {} may be used", names(allowed))]
    Algorithm { allowed: Vec<Algorithm> },
    #[error("token's header demands extensions (crit), and none is understood")]
    Critical,
    #[error("token is signed with a key that is not among its issuer's")]
    UnknownKey,
    #[error("token names no key (kid), and {candidates} of its issuer's could have signed it")]
    AmbiguousKey { candidates: usize },
    #[error("token has a bad signature")]
    BadSignature,
    #[error("token is expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token has no {claim}")]
    Missing { claim: String },
    #[error("token's {claim} is malformed")]
    ClaimFormat { claim: String },
    #[error("token is of another issuer")]
    Issuer,
    #[error("token is for another audience")]
    Audience,
    #[error("token's {claim} is no user id: {error}")]
    User { claim: String, error: IdError },
    #[error("token's {claim} is the server's own name")]
    Reserved { claim: String },
    #[error("the keys to verify tokens with cannot be had")]
    KeysUnavailable,
}

impl TokenError {
    /// Whether the issuer's newest keys could say otherwise.
    pub(crate) const fn is_of_the_key(&self) -> bool {
        matches!(self, Self::UnknownKey | Self::AmbiguousKey { .. } | Self::BadSignature)
    }
}

impl From<TokenError> for Fault {
    fn from(error: TokenError) -> Self {
        let code = match error {
            TokenError::KeysUnavailable => FaultCode::Unavailable,
            TokenError::TooLong { .. }
            | TokenError::Malformed
            | TokenError::Algorithm { .. }
            | TokenError::Critical
            | TokenError::UnknownKey
            | TokenError::AmbiguousKey { .. }
            | TokenError::BadSignature
            | TokenError::Expired
            | TokenError::NotYetValid
            | TokenError::Missing { .. }
            | TokenError::ClaimFormat { .. }
            | TokenError::Issuer
            | TokenError::Audience
            | TokenError::User { .. }
            | TokenError::Reserved { .. } => FaultCode::Unauthenticated,
        };
        Self::new(code, error.to_string())
    }
}

impl From<jsonwebtoken::errors::Error> for TokenError {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        match error.into_kind() {
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::NotYetValid,
            ErrorKind::InvalidSignature => Self::BadSignature,
            ErrorKind::MissingRequiredClaim(claim) => Self::Missing { claim },
            ErrorKind::InvalidClaimFormat(claim) => Self::ClaimFormat { claim },
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            // A key of the set that is no point on its curve verifies nothing.
            ErrorKind::InvalidEcdsaKey | ErrorKind::InvalidEddsaKey | ErrorKind::InvalidKeyFormat => Self::UnknownKey,
            _ => Self::Malformed,
        }
    }
}

fn names(algorithms: &[Algorithm]) -> String {
    algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
}
