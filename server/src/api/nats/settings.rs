//! What an operator decides about NATS, as plain data.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synchrotron_nats::subjects::SubjectPrefix;
use synchrotron_nats::{Servers, SettingsError};

use super::PartitionCount;
use crate::settings::seconds;

/// Where NATS is, and the bounds of what is kept there and done at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NatsApiSettings {
    /// Where NATS is.
    #[serde(rename = "url", serialize_with = "hidden", deserialize_with = "servers_of_text")]
    pub servers: Servers,
    /// What every subject begins with; the streams are named after it.
    #[serde(serialize_with = "text_of_prefix", deserialize_with = "prefix_of_text")]
    pub prefix: SubjectPrefix,
    /// How many NATS servers keep each stream.
    pub replicas: usize,
    /// Whether the server makes the streams and lets them grow; if not, somebody else has made them.
    pub manage_streams: bool,
    /// In how many partitions uploads are read, by all processes together.
    pub partitions: PartitionCount,
    /// How long a process that ended without a word still counts as the reader of its partitions.
    #[serde(rename = "lease_seconds", with = "seconds")]
    pub lease: Duration,
    /// The largest upload that is taken, in bytes; that of the server's settings, where it is configured.
    #[serde(skip)]
    pub upload_bytes_max: usize,
    /// How many uploads are worked on at once.
    pub uploads_max: usize,
    /// How long one upload may take; after that the device is told to retry.
    #[serde(rename = "upload_within_seconds", with = "seconds")]
    pub upload_within: Duration,
    /// How often an upload is begun before it is refused: it ended the work on it each time.
    pub deliveries_max: u32,
    /// How many requests are served at once; more are told to come back.
    pub requests_max: usize,
    /// How many requests may wait to be read; more are dropped.
    pub requests_waiting_max: usize,
    /// How long one request may take.
    #[serde(rename = "request_within_seconds", with = "seconds")]
    pub request_within: Duration,
    /// How often slices are looked for that a crash or an outage has left unpublished.
    #[serde(rename = "sweep_every_seconds", with = "seconds")]
    pub sweep_every: Duration,
    /// How much of the newest history a server publishes by itself into a stream of slices that is new or has lost some;
    /// 0 is none.
    #[serde(rename = "republish_seconds", with = "seconds")]
    pub republish: Duration,
    /// How long a stream keeps a message.
    #[serde(rename = "stream_age_seconds_max", with = "seconds")]
    pub stream_age_max: Duration,
    /// How much a stream keeps, in bytes.
    pub stream_bytes_max: i64,
}

/// NATS listens there unless it is told otherwise.
const DEFAULT_URL: &str = "nats://127.0.0.1:4222";

impl Default for NatsApiSettings {
    fn default() -> Self {
        Self {
            servers: DEFAULT_URL.parse().expect("BUG: the default is an address"),
            prefix: SubjectPrefix::default(),
            replicas: 1,
            manage_streams: true,
            partitions: PartitionCount::ONE,
            lease: Duration::from_secs(6),
            upload_bytes_max: 8 << 20,
            uploads_max: 32,
            upload_within: Duration::from_secs(20),
            deliveries_max: 5,
            requests_max: 64,
            requests_waiting_max: 1_024,
            request_within: Duration::from_secs(15),
            sweep_every: Duration::from_secs(5),
            republish: Duration::from_secs(2 * 60),
            stream_age_max: Duration::from_secs(60 * 60),
            stream_bytes_max: 512 << 20,
        }
    }
}

impl NatsApiSettings {
    /// Every default, for these servers: `nats://host:port`, or `tls://…`, several separated by commas.
    ///
    /// # Errors
    /// [`SettingsError`] if that names no servers.
    pub fn new(servers: &str) -> Result<Self, SettingsError> {
        Ok(Self { servers: servers.parse()?, ..Self::default() })
    }

    /// The same beneath another prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: SubjectPrefix) -> Self {
        self.prefix = prefix;
        self
    }
}

fn servers_of_text<'de, D: Deserializer<'de>>(text: D) -> Result<Servers, D::Error> {
    String::deserialize(text)?.parse().map_err(serde::de::Error::custom)
}

fn prefix_of_text<'de, D: Deserializer<'de>>(text: D) -> Result<SubjectPrefix, D::Error> {
    SubjectPrefix::new(&String::deserialize(text)?).map_err(serde::de::Error::custom)
}

fn text_of_prefix<S: Serializer>(prefix: &SubjectPrefix, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(prefix)
}

/// Addresses may hold passwords.
fn hidden<S: Serializer>(_servers: &Servers, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("…")
}
