//! What an operator decides about NATS, as plain data.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use synchrotron_nats::link::Login;
use synchrotron_nats::subjects::SubjectPrefix;
use synchrotron_nats::{Servers, SettingsError, Tls};

use super::conf::CLIENTS_ACCOUNT;
use super::{NatsKeys, PartitionCount};
use crate::settings::{self, Secret, millis, seconds};

/// Where NATS is, and the bounds of what is kept there and done at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct NatsApiSettings {
    /// Where NATS is.
    #[serde(rename = "url", serialize_with = "hidden", deserialize_with = "servers_of_text")]
    pub servers: Servers,
    /// What the keys are made of that NATS and the server share; the same as NATS's configuration was written with.
    pub secret: Option<Secret>,
    /// How the server logs in where its streams are, in place of the key that follows from the secret; where NATS asks who
    /// connects; and to the system's account.
    #[serde(serialize_with = "hidden_login", deserialize_with = "login_of_text")]
    pub login: Option<Login>,
    /// Where NATS asks who connects.
    #[serde(serialize_with = "hidden_login", deserialize_with = "login_of_text")]
    pub callout_login: Option<Login>,
    /// In the system's account.
    #[serde(serialize_with = "hidden_login", deserialize_with = "login_of_text")]
    pub system_login: Option<Login>,
    /// The account of devices.
    pub clients_account: String,
    /// PEM files of the authorities that NATS is believed by; without any, those of the machine.
    pub tls_authorities: Vec<PathBuf>,
    /// PEM file of the server's own certificate, where NATS asks for one.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub tls_key: Option<PathBuf>,
    /// How often the audiences of all who are connected are compared with their connections' rights.
    #[serde(rename = "membership_every_ms", with = "millis")]
    pub membership_every: Duration,
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
    /// How many of them may be one user's.
    pub requests_per_user_max: usize,
    /// The most requests per second of one user, over all of its devices; short bursts of ten times as many are taken.
    /// 0 for no limit.
    pub requests_per_second_per_user: u32,
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
            secret: None,
            login: None,
            callout_login: None,
            system_login: None,
            clients_account: CLIENTS_ACCOUNT.to_owned(),
            tls_authorities: Vec::new(),
            tls_certificate: None,
            tls_key: None,
            membership_every: Duration::from_secs(1),
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
            requests_per_user_max: 32,
            requests_per_second_per_user: 200,
            requests_waiting_max: 16_384,
            request_within: Duration::from_secs(15),
            sweep_every: Duration::from_secs(5),
            republish: Duration::from_secs(2 * 60),
            stream_age_max: Duration::from_secs(60 * 60),
            stream_bytes_max: 512 << 20,
        }
    }
}

impl NatsApiSettings {
    /// Every default, for these servers (`nats://host:port`, or `tls://…`, several separated by commas) with the secret that
    /// their configuration was written with.
    ///
    /// # Errors
    /// [`SettingsError`] if that names no servers.
    pub fn new(servers: &str, secret: impl Into<Vec<u8>>) -> Result<Self, SettingsError> {
        Ok(Self { servers: servers.parse()?, secret: Some(Secret::new(secret)), ..Self::default() })
    }

    /// The keys that follow from the secret.
    ///
    /// # Errors
    /// [`settings::SettingsError`] if there is no secret, or one that could be guessed.
    pub fn keys(&self) -> Result<NatsKeys, settings::SettingsError> {
        NatsKeys::derive(self.secret.as_ref().ok_or(settings::SettingsError::NoNatsSecret)?)
    }

    /// Checks what can be checked without NATS.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), settings::SettingsError> {
        self.keys()?;
        if self.tls_certificate.is_some() != self.tls_key.is_some() {
            return Err(settings::SettingsError::NatsCertificate);
        }
        let bounds = [
            ("nats.membership_every_ms", self.membership_every.is_zero()),
            ("nats.requests_per_user_max", self.requests_per_user_max == 0),
        ];
        match bounds.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((setting, _)) => Err(settings::SettingsError::TooSmall { setting, actual: 0, min: 1 }),
            None => Ok(()),
        }
    }

    /// How the server logs in where its streams are.
    pub(super) fn login_with(&self, keys: &NatsKeys) -> Login {
        self.login.clone().unwrap_or_else(|| keys.server_login())
    }

    /// How connections are encrypted.
    pub(super) fn tls(&self) -> Tls {
        let certificate = self.tls_certificate.clone().zip(self.tls_key.clone());
        Tls { authorities: self.tls_authorities.clone(), certificate, first: false }
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

fn login_of_text<'de, D: Deserializer<'de>>(text: D) -> Result<Option<Login>, D::Error> {
    let text = Option::<String>::deserialize(text)?.filter(|text| !text.is_empty());
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

fn hidden_login<S: Serializer>(login: &Option<Login>, serializer: S) -> Result<S::Ok, S::Error> {
    login.as_ref().map(|_| "…").serialize(serializer)
}

/// Addresses may hold passwords.
fn hidden<S: Serializer>(_servers: &Servers, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("…")
}
