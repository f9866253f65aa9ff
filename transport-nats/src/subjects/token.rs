//! One id as one token of a subject, and back.

use std::fmt;

use sha2::{Digest, Sha256};
use synchrotron_core::model::{AudienceKey, UserId};

/// Longer ids are hashed: a subject must fit the line that a NATS server reads (4 KiB).
const KEPT_BYTES_MAX: usize = 128;
/// Marks a hashed id; no escape of a byte begins so.
const HASHED: &str = "=h";
/// Stands for "no audience"; no escape of a byte begins so.
const NO_AUDIENCE: &str = "=none";
const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Escapes an audience; hashes a long one.
fn token_of(id: &str) -> String {
    if id.len() > KEPT_BYTES_MAX {
        let mut token = String::from(HASHED);
        Sha256::digest(id.as_bytes()).iter().for_each(|byte| push_hex(&mut token, *byte));
        return token;
    }
    escaped(id)
}

fn escaped(id: &str) -> String {
    let mut token = String::with_capacity(id.len());
    for byte in id.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' => token.push(char::from(byte)),
            _ => {
                token.push('=');
                push_hex(&mut token, byte);
            }
        }
    }
    token
}

fn push_hex(token: &mut String, byte: u8) {
    for nibble in [byte >> 4, byte & 0xf] {
        token.push(char::from(HEX[usize::from(nibble)]));
    }
}

/// The id of a token; `None` for one that was hashed, and for what no id becomes.
fn id_of(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => bytes.push((nibble(rest.next()?)? << 4) | nibble(rest.next()?)?),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    let position = HEX.iter().position(|hex| *hex == digit)?;
    u8::try_from(position).ok()
}

/// Whether an id may have become this token.
fn is_token(token: &str) -> bool {
    match token.strip_prefix(HASHED) {
        Some(hash) => hash.len() == 64 && hash.bytes().all(|digit| HEX.contains(&digit)),
        None => id_of(token).is_some_and(|id| !id.is_empty() && token_of(&id) == token),
    }
}

/// A user as a token of a subject. Never a hash: who sends is read from the subject, whose user NATS has enforced.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserToken(String);

impl UserToken {
    /// The token of this user.
    #[must_use]
    pub fn of(user_id: &UserId) -> Self {
        Self(escaped(user_id.as_str()))
    }

    /// What arrived in a subject, if a user's token can look so.
    #[must_use]
    pub fn from_subject(token: &str) -> Option<Self> {
        // Only one spelling of each user is a token: another one would name the same user with other rights.
        let user_id = UserId::new(id_of(token)?).ok()?;
        Some(Self::of(&user_id)).filter(|canonical| canonical.0 == token)
    }

    /// The user.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        let user_id = id_of(&self.0).and_then(|id| UserId::new(id).ok());
        user_id.expect("BUG: a token is made of a user, or read as one")
    }
}

impl fmt::Display for UserToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An audience, or none, as a token of a subject.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AudienceToken(String);

impl AudienceToken {
    /// The token of this audience.
    #[must_use]
    pub fn of(audience_key: &AudienceKey) -> Self {
        Self(token_of(audience_key.as_str()))
    }

    /// The token of a batch that touches no audience.
    #[must_use]
    pub fn none() -> Self {
        Self(NO_AUDIENCE.to_owned())
    }

    /// What arrived in a subject, if an audience's token can look so.
    pub(super) fn from_subject(token: &str) -> Option<Self> {
        (token == NO_AUDIENCE || is_token(token)).then(|| Self(token.to_owned()))
    }

    /// The audience, unless the token is a hash or names none.
    #[must_use]
    pub fn audience_key(&self) -> Option<AudienceKey> {
        id_of(&self.0).and_then(|id| AudienceKey::new(id).ok())
    }
}

impl fmt::Display for AudienceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_plain_stays_and_the_rest_is_escaped() {
        assert_eq!(token_of("user_A-1"), "user_A-1");
        assert_eq!(token_of("a.b > *\n=🎭"), "a=2Eb=20=3E=20=2A=0A=3D=F0=9F=8E=AD");
        assert_eq!(token_of(&"x".repeat(129)).len(), 66);
    }

    #[test]
    fn none_is_no_audience() {
        for key in ["_", "none", "=none", "=h"] {
            let token = AudienceToken::of(&AudienceKey::new(key).expect("ok"));
            assert_ne!(token, AudienceToken::none());
        }
        assert_eq!(AudienceToken::none().audience_key(), None);
        assert!(AudienceToken::from_subject("=none").is_some() && UserToken::from_subject("=none").is_none());
    }

    #[test]
    fn only_one_spelling_is_a_token() {
        for forged in ["", "=41", "=2e", "=", "=2", "a.b", "*", ">", "a b", "=hZZ", "é"] {
            assert_eq!(UserToken::from_subject(forged), None, "{forged}");
        }
    }

    proptest! {
        #[test]
        fn users_of_any_length_come_back(id in "(?s)[^\0]{1,64}|[.é]{128}") {
            let user_id = UserId::new(id).expect("ok");
            let token = UserToken::of(&user_id);
            prop_assert_eq!(token.user_id(), user_id);
            prop_assert_eq!(UserToken::from_subject(&token.to_string()), Some(token));
        }

        #[test]
        fn a_token_is_one_token(id in "\\PC{1,140}|[.*> \n=]{1,140}") {
            let token = token_of(&id);
            prop_assert!(!token.is_empty());
            prop_assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-=".contains(&byte)), "{}", token);
            prop_assert!(is_token(&token));
        }

        #[test]
        fn short_ids_come_back(id in "(?s).{1,32}") {
            prop_assert_eq!(id_of(&token_of(&id)), Some(id));
        }

        #[test]
        fn long_ids_differ_as_short_ones_do(a in "(?s)[.a=A]{120,140}", b in "(?s)[.a=A]{120,140}") {
            prop_assert_eq!(a == b, token_of(&a) == token_of(&b));
        }

        #[test]
        fn two_ids_never_share_a_token(a in "[=.2Ea]{1,6}", b in "[=.2Ea]{1,6}") {
            prop_assert_eq!(a == b, token_of(&a) == token_of(&b));
        }
    }
}
