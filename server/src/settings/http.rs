//! What HTTP may cost, and who may call from a browser.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{SettingsError, millis, seconds};

/// Bounds of HTTP, in requests, connections and time; and the origins of browsers that may call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpSettings {
    /// The most connections that are open at once; more wait to be accepted.
    pub connections_max: usize,
    /// How long a connection may take to say what it wants, and how long one stays open that wants nothing.
    #[serde(rename = "head_seconds_max", with = "seconds")]
    pub head_within: Duration,
    /// How long a request's body may take to arrive.
    #[serde(rename = "body_seconds_max", with = "seconds")]
    pub body_within: Duration,
    /// How long a peer may take none of the bytes that wait for it.
    #[serde(rename = "write_seconds_max", with = "seconds")]
    pub write_within: Duration,
    /// How many requests are served at once; more are told to come back.
    pub requests_max: usize,
    /// How many of them may be one user's.
    pub requests_per_user_max: usize,
    /// The most requests per second of one user, over all of its devices; short bursts of ten times as many are taken.
    /// 0 for no limit.
    pub requests_per_second_per_user: u32,
    /// How many devices may listen at once, by events or by long polls; more are told to come back.
    pub streams_max: usize,
    /// How many of them may be one user's.
    pub streams_per_user_max: usize,
    /// How often those that listen are looked for news of other servers.
    #[serde(rename = "look_every_ms", with = "millis")]
    pub look_every: Duration,
    /// How often those that listen are looked for memberships that came or went.
    #[serde(rename = "members_seconds", with = "seconds")]
    pub members_every: Duration,
    /// After how much silence a stream of events says that it lives.
    #[serde(rename = "heartbeat_seconds", with = "seconds")]
    pub heartbeat: Duration,
    /// How long a long poll may wait.
    #[serde(rename = "wait_seconds_max", with = "seconds")]
    pub wait_max: Duration,
    /// The origins of browsers that may call, such as `https://app.example`; `*` for all of them.
    pub cors_origins: Vec<String>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            head_within: Duration::from_secs(30),
            body_within: Duration::from_secs(30),
            write_within: Duration::from_secs(30),
            requests_max: 256,
            requests_per_user_max: 32,
            requests_per_second_per_user: 200,
            streams_max: 10_000,
            streams_per_user_max: 32,
            look_every: Duration::from_secs(1),
            members_every: Duration::from_secs(15),
            heartbeat: Duration::from_secs(15),
            wait_max: Duration::from_secs(25),
            cors_origins: Vec::new(),
        }
    }
}

impl HttpSettings {
    /// The first setting that cannot work.
    pub(super) fn validate(&self) -> Result<(), SettingsError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bounds = [
            ("http.connections_max", self.connections_max as u64),
            ("http.head_seconds_max", millis(self.head_within)),
            ("http.body_seconds_max", millis(self.body_within)),
            ("http.write_seconds_max", millis(self.write_within)),
            ("http.requests_max", self.requests_max as u64),
            ("http.requests_per_user_max", self.requests_per_user_max as u64),
            ("http.streams_max", self.streams_max as u64),
            ("http.streams_per_user_max", self.streams_per_user_max as u64),
            ("http.look_every_ms", millis(self.look_every)),
            ("http.members_seconds", millis(self.members_every)),
            ("http.heartbeat_seconds", millis(self.heartbeat)),
            ("http.wait_seconds_max", millis(self.wait_max)),
        ];
        if let Some((setting, actual)) = bounds.into_iter().find(|(_, actual)| *actual == 0) {
            return Err(SettingsError::TooSmall { setting, actual, min: 1 });
        }
        match self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => Err(SettingsError::Origin { origin: origin.clone() }),
            None => Ok(()),
        }
    }
}

/// As browsers send it: scheme and host, a port if it is not the scheme's own, and nothing after.
fn is_origin(text: &str) -> bool {
    text == "*"
        || url::Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_sends() {
        for good in ["*", "https://app.example", "http://localhost:3000"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "app.example", "https://app.example/", "https://app.example/a", "https://app.example:443", "null"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
        let settings = HttpSettings { cors_origins: vec!["app".to_owned()], ..HttpSettings::default() };
        assert!(matches!(settings.validate(), Err(SettingsError::Origin { .. })));
    }
}
