//! One secret → every key that NATS and the server share.
//!
//! nats-server's configuration has the public halves only, so it may be read by anyone; whoever has the secret may be the
//! server. Another secret makes other keys, and the old ones end with the configuration that named them.

use std::fmt;

use nkeys::{KeyPair, KeyPairType};
use sha2::{Digest, Sha256};
use synchrotron_nats::link::Login;

use crate::settings::{Secret, SettingsError};

/// The keys of one deployment.
pub struct NatsKeys {
    /// Signs what the server answers when NATS asks about a token.
    pub(super) issuer: KeyPair,
    pub(super) server: KeyPair,
    pub(super) callout: KeyPair,
    pub(super) system: KeyPair,
}

impl NatsKeys {
    /// Shorter secrets could be guessed from the public keys.
    pub const SECRET_BYTES_MIN: usize = 32;

    /// The keys that follow from a secret, always the same.
    ///
    /// # Errors
    /// [`SettingsError::NatsSecretTooShort`].
    pub fn derive(secret: &Secret) -> Result<Self, SettingsError> {
        let actual = secret.as_bytes().len();
        if actual < Self::SECRET_BYTES_MIN {
            return Err(SettingsError::NatsSecretTooShort { actual, min: Self::SECRET_BYTES_MIN });
        }
        let pair = |kind, purpose: &str| {
            let mut hash = Sha256::new();
            hash.update(format!("synchrotron nats {purpose}\0"));
            hash.update(secret.as_bytes());
            KeyPair::new_from_raw(kind, hash.finalize().into()).expect("BUG: 32 bytes are a seed")
        };
        Ok(Self {
            issuer: pair(KeyPairType::Account, "issuer"),
            server: pair(KeyPairType::User, "server"),
            callout: pair(KeyPairType::User, "callout"),
            system: pair(KeyPairType::User, "system"),
        })
    }
}

impl NatsKeys {
    /// The server where its streams are.
    #[must_use]
    pub fn server_login(&self) -> Login {
        Login::nkey(&self.server)
    }

    /// The server where NATS asks about tokens.
    #[must_use]
    pub fn callout_login(&self) -> Login {
        Login::nkey(&self.callout)
    }

    /// The server where NATS tells about connections, and ends them.
    #[must_use]
    pub fn system_login(&self) -> Login {
        Login::nkey(&self.system)
    }
}

impl fmt::Debug for NatsKeys {
    /// Only what anyone may know.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsKeys").field("issuer", &self.issuer.public_key()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_from_the_secret_and_differ_from_each_other() {
        let keys = |secret: &str| {
            NatsKeys::derive(&Secret::new(secret))
                .map(|keys| [keys.issuer, keys.server, keys.callout, keys.system].map(|pair| pair.public_key()))
        };
        let (one, other) = ("0123456789abcdef0123456789abcdef", "another secret of at least 32 bytes");
        assert_eq!(keys(one).expect("long enough"), keys(one).expect("long enough"));
        assert_ne!(keys(one).expect("long enough"), keys(other).expect("long enough"));
        let [issuer, users @ ..] = keys(one).expect("long enough");
        assert!(issuer.starts_with('A') && users.iter().all(|user| user.starts_with('U')));
        assert!(users[0] != users[1] && users[1] != users[2] && users[0] != users[2]);
        assert!(matches!(keys("short"), Err(SettingsError::NatsSecretTooShort { actual: 5, .. })));
    }
}
