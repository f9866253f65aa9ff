//! What NATS says of a connection: in which account it is, and what it may hear.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::Client;
use futures::StreamExt;
use serde::Deserialize;

use super::told::{Told, denied};
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

/// Asks until NATS answers. One that may not even ask is told so: that is an answer, and says that it may do nothing.
pub(super) async fn ask(client: &Client, told: &Told) -> ConnectionInfo {
    let mut asking = tokio::time::interval(ANSWER_WITHIN);
    loop {
        asking.tick().await;
        if let Ok(Some(info)) = tokio::time::timeout(ANSWER_WITHIN, ask_once(client, told)).await {
            return info;
        }
        tracing::warn!(subject = OWN_RIGHTS, "NATS does not say what this connection may do");
    }
}

async fn ask_once(client: &Client, told: &Told) -> Option<ConnectionInfo> {
    let inbox = client.new_inbox();
    let mut denials = told.denials.subscribe();
    let mut answers = client.subscribe(inbox.clone()).await.ok()?;
    client.publish_with_reply(OWN_RIGHTS, inbox.clone(), "".into()).await.ok()?;
    tokio::select! {
        answer = answers.next() => {
            let Answer { data } = serde_json::from_slice(&answer?.payload).ok()?;
            Some(data)
        }
        _ = denied(&mut denials, |denial| [inbox.as_str(), OWN_RIGHTS].contains(&denial.subject.as_str())) => {
            Some(ConnectionInfo::default())
        }
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
