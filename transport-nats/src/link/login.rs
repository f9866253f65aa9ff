//! How a connection proves who it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{Auth, AuthError, ConnectOptions};
use synchrotron_core::network::TokenSource;

use super::tokens::Tokens;
use crate::settings::{Servers, SettingsError};

/// How a connection proves who it is.
#[derive(Clone, Default)]
pub enum Login {
    /// By user and password of the first server's URL, if it has them.
    #[default]
    Url,
    /// By a token of the app, asked for anew for each connection; it may take so long to come.
    Token(Arc<dyn TokenSource>, Duration),
    /// By a key pair: its seed.
    Nkey(Arc<str>),
    /// By the content of a credentials file, as operators of NATS hand out.
    Credentials(Arc<str>),
    /// By a user's name and a password.
    Password(Arc<str>, Arc<str>),
}

impl Login {
    /// By a key pair.
    #[must_use]
    pub fn nkey(pair: &nkeys::KeyPair) -> Self {
        Self::Nkey(pair.seed().expect("BUG: a pair that signs has a seed").into())
    }

    /// What a connection of this login begins with.
    pub(super) fn options(self, servers: &Servers, tokens: Option<&Arc<Tokens>>) -> ConnectOptions {
        match self {
            Self::Url => {
                match servers.addresses().iter().find_map(|server| Some((server.username()?, server.password()?))) {
                    Some((user, password)) => {
                        ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
                    }
                    None => ConnectOptions::new(),
                }
            }
            Self::Password(user, password) => {
                ConnectOptions::with_user_and_password(user.to_string(), password.to_string())
            }
            Self::Nkey(seed) => ConnectOptions::with_nkey(seed.to_string()),
            Self::Credentials(content) => {
                ConnectOptions::with_credentials(&content).expect("BUG: credentials are read when they are parsed")
            }
            Self::Token(..) => {
                let tokens = tokens.map(Arc::clone).expect("BUG: a login by token has tokens");
                ConnectOptions::with_auth_callback(move |_nonce| {
                    let tokens = Arc::clone(&tokens);
                    async move {
                        let token = tokens.next().await.map_err(AuthError::new)?;
                        let mut auth = Auth::new();
                        auth.token = Some(token.to_string());
                        Ok(auth)
                    }
                })
            }
        }
    }
}

impl FromStr for Login {
    type Err = SettingsError;

    /// Reads the seed of a user's key pair (`SU…`), `user:password`, or the path of a credentials file.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        if let Ok(pair) = nkeys::KeyPair::from_seed(text) {
            return Ok(Self::nkey(&pair));
        }
        if let Some((user, password)) = text.split_once(':').filter(|_| !text.ends_with(".creds")) {
            return Ok(Self::Password(user.into(), password.into()));
        }
        let unfit = |source| SettingsError::Credentials { source };
        let content = std::fs::read_to_string(text).map_err(unfit)?;
        ConnectOptions::with_credentials(&content).map_err(unfit)?;
        Ok(Self::Credentials(content.into()))
    }
}

impl fmt::Debug for Login {
    /// Whatever it holds is a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "Url",
            Self::Token(..) => "Token(…)",
            Self::Nkey(_) => "Nkey(…)",
            Self::Credentials(_) => "Credentials(…)",
            Self::Password(..) => "Password(…)",
        })
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;

    use super::*;

    #[test]
    fn logins_are_read_and_not_shown() {
        let seed = KeyPair::new_user().seed().expect("a seed");
        assert!(matches!(seed.parse(), Ok(Login::Nkey(_))));
        let login: Login = "user:hunter2:x".parse().expect("a password");
        assert!(matches!(&login, Login::Password(user, password) if &**user == "user" && &**password == "hunter2:x"));
        assert!(!format!("{login:?}").contains("hunter2"));
        assert!(matches!("no/such/file.creds".parse::<Login>(), Err(SettingsError::Credentials { .. })));
    }
}
