//! Subjects as they arrive at the server, read back into typed ids.

use std::str::FromStr;

use synchrotron_core::model::ClientId;
use uuid::Uuid;

use super::{AudienceToken, RpcMethod, Subjects, UserToken};

/// Why a subject is none of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// It does not begin as it must.
    #[error("subject does not begin with {expected}")]
    Prefix {
        /// How it must begin.
        expected: String,
    },
    /// It has too few or too many tokens.
    #[error("subject has {actual} tokens after {after}, {expected} are needed")]
    Tokens {
        /// What the tokens follow.
        after: String,
        /// How many are needed.
        expected: usize,
        /// How many there are.
        actual: usize,
    },
    /// A token is none that an id becomes.
    #[error("subject's {which} is malformed")]
    Token {
        /// Which token.
        which: &'static str,
    },
    /// No such method.
    #[error("subject's method is unknown")]
    Method,
}

/// Who uploads, as the subject says, which NATS lets nobody else publish to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpSubject {
    /// The audience of the batch's first row.
    pub audience: AudienceToken,
    /// The user.
    pub user: UserToken,
    /// The device.
    pub client_id: ClientId,
}

/// Who asks for what, as the subject says, which NATS lets nobody else publish to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpcSubject {
    /// The user.
    pub user: UserToken,
    /// The device.
    pub client_id: ClientId,
    /// What is asked for.
    pub method: RpcMethod,
}

impl Subjects {
    /// Reads the subject of an upload.
    ///
    /// # Errors
    /// [`SubjectError`] if it is none.
    pub fn parse_up(&self, subject: &str) -> Result<UpSubject, SubjectError> {
        let [audience, user, client] = self.tokens_after(subject, "up")?;
        Ok(UpSubject {
            audience: AudienceToken::from_subject(audience).ok_or(SubjectError::Token { which: "audience" })?,
            user: parse_user(user)?,
            client_id: parse_client(client)?,
        })
    }

    /// Reads the subject of a request that another process could not answer.
    ///
    /// # Errors
    /// [`SubjectError`] if it is none.
    pub fn parse_held(&self, subject: &str) -> Result<RpcSubject, SubjectError> {
        let [_, user, client] = self.tokens_after(subject, "held")?;
        Ok(RpcSubject { user: parse_user(user)?, client_id: parse_client(client)?, method: RpcMethod::Snapshot })
    }

    /// Reads the subject of a request.
    ///
    /// # Errors
    /// [`SubjectError`] if it is none.
    pub fn parse_rpc(&self, subject: &str) -> Result<RpcSubject, SubjectError> {
        let [user, client, method] = self.tokens_after(subject, "rpc")?;
        Ok(RpcSubject { user: parse_user(user)?, client_id: parse_client(client)?, method: method.parse()? })
    }

    fn tokens_after<'a, const N: usize>(&self, subject: &'a str, kind: &str) -> Result<[&'a str; N], SubjectError> {
        let start = format!("{}.{kind}.", self.prefix());
        let Some(rest) = subject.strip_prefix(&start) else {
            return Err(SubjectError::Prefix { expected: start });
        };
        let tokens: Vec<&str> = rest.split('.').collect();
        let actual = tokens.len();
        tokens.try_into().map_err(|_| SubjectError::Tokens { after: start, expected: N, actual })
    }
}

fn parse_user(token: &str) -> Result<UserToken, SubjectError> {
    UserToken::from_subject(token).ok_or(SubjectError::Token { which: "user" })
}

/// Only the spelling that a client id is written in: lower case, with hyphens.
fn parse_client(token: &str) -> Result<ClientId, SubjectError> {
    let malformed = SubjectError::Token { which: "client" };
    let Ok(uuid) = Uuid::try_parse(token) else { return Err(malformed) };
    let client_id = ClientId::from_uuid(uuid);
    if client_id.to_string() == token { Ok(client_id) } else { Err(malformed) }
}

impl FromStr for RpcMethod {
    type Err = SubjectError;

    fn from_str(token: &str) -> Result<Self, SubjectError> {
        Self::ALL.into_iter().find(|method| method.as_str() == token).ok_or(SubjectError::Method)
    }
}
