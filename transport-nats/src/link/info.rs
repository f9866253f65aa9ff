//! What NATS says of a connection: in which account it is, and what it may hear.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use serde::Deserialize;
use synchrotron_core::network::{Carrier, NetworkError};

use super::Link;
use crate::subjects::OWN_RIGHTS;

/// How long NATS may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A connection, as NATS has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct ConnectionInfo {
    /// Its account.
    pub account: String,
    #[serde(default)]
    permissions: Permissions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Permissions {
    #[serde(default)]
    subscribe: Allowed,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
struct Allowed {
    #[serde(default)]
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Answer {
    data: ConnectionInfo,
}

impl ConnectionInfo {
    /// Whether this very subject is one that it may subscribe to.
    #[must_use]
    pub fn may_hear(&self, subject: &str) -> bool {
        self.permissions.subscribe.allow.contains(subject)
    }
}

impl Link {
    /// What NATS says of this connection.
    ///
    /// # Errors
    /// [`NetworkError::Unavailable`] if it does not answer.
    pub async fn info(&self) -> Result<ConnectionInfo, NetworkError> {
        let away = |detail: String| NetworkError::Unavailable { carrier: Carrier::Nats, detail };
        let client = self.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| away(error.to_string()))?;
        let asked = client.publish_with_reply(OWN_RIGHTS, inbox, "".into()).await;
        asked.map_err(|error| away(error.to_string()))?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, answers.next()).await.ok().flatten();
        let answer = answer.ok_or_else(|| away("NATS does not say what this connection may do".to_owned()))?;
        let read = serde_json::from_slice(&answer.payload).map(|Answer { data }| data);
        read.map_err(|error| away(format!("what NATS says of this connection cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nats_says_is_read() {
        let said = r#"{"server":{"id":"N"},"data":{"user":"u","account":"A","permissions":
            {"publish":{"allow":["p"]},"subscribe":{"allow":["a.b"]}},"expires":7}}"#;
        let Answer { data } = serde_json::from_str(said).expect("reads");
        assert!(data.account == "A" && data.may_hear("a.b") && !data.may_hear("p") && !data.may_hear("a.*"));
        let Answer { data } = serde_json::from_str(r#"{"data":{"user":"u","account":"$G"}}"#).expect("reads");
        assert!(!data.may_hear("a.b"));
    }
}
