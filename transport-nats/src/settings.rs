//! What can be set, and what cannot be set so.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;
use std::{fmt, io};

use async_nats::{ConnectOptions, ServerAddr};

use crate::subjects::SubjectPrefix;

/// The servers of one NATS cluster; at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Servers(Vec<ServerAddr>);

impl Servers {
    /// Their addresses.
    #[must_use]
    pub fn addresses(&self) -> &[ServerAddr] {
        &self.0
    }
}

impl FromStr for Servers {
    type Err = SettingsError;

    /// Reads `nats://host:port`, `tls://…`, `ws://…` or `wss://…`, several separated by commas.
    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let named = text.split(',').map(str::trim).filter(|server| !server.is_empty());
        let parsed: Result<Vec<ServerAddr>, io::Error> = named.map(str::parse).collect();
        let servers = parsed.map_err(|source| SettingsError::Server { source })?;
        let sockets = servers.iter().filter(|server| server.is_websocket()).count();
        match servers.len() {
            0 => Err(SettingsError::NoServer),
            all if sockets != 0 && sockets != all => Err(SettingsError::MixedServers),
            _ => Ok(Self(servers)),
        }
    }
}

impl fmt::Display for Servers {
    /// Host and port of each, without the passwords that addresses may hold.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, server) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            let (open, close) = if server.host().contains(':') { ("[", "]") } else { ("", "") };
            write!(f, "{separator}{open}{}{close}:{}", server.host(), server.port())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Servers {
    /// No more than what is for display.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Servers({self})")
    }
}

/// How a connection is encrypted, where its URL (`tls://`, `wss://`) or the server asks for that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM files of the authorities that servers are believed by; without any, those of the machine.
    pub authorities: Vec<PathBuf>,
    /// PEM files of a certificate and its key, for servers that ask for one.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whether encryption begins before the server says anything (`handshake_first`).
    pub first: bool,
}

impl Tls {
    /// Adds it to what a connection is made with.
    pub(crate) fn add_to(self, mut options: ConnectOptions) -> ConnectOptions {
        install_crypto();
        for authority in self.authorities {
            options = options.add_root_certificates(authority);
        }
        if let Some((certificate, key)) = self.certificate {
            options = options.add_client_certificate(certificate, key);
        }
        if self.first { options.tls_first() } else { options }
    }
}

/// Gives rustls its cryptography, unless the program has chosen one.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The loser of a race finds the winner's provider, which serves as well.
        let _lost_race = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Where NATS is, and the bounds of a [`NatsNetwork`](crate::NatsNetwork) in time and size.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct NatsSettings {
    /// Where NATS is.
    pub servers: Servers,
    /// How the connection is encrypted.
    pub tls: Tls,
    /// What every subject begins with; the same on the server.
    pub prefix: SubjectPrefix,
    /// How long one attempt to connect may take.
    pub connect_within: Duration,
    /// How long the app's [`TokenSource`](synchrotron_core::network::TokenSource) may take to give a token, through several
    /// attempts. Then calls say so, and the next attempt asks it anew.
    pub token_within: Duration,
    /// The longest pause between two attempts.
    pub reconnect_pause_max: Duration,
    /// How often a silent server is asked whether it is there; the connection is given up after three silent intervals.
    pub ping_every: Duration,
    /// How long a session may take to open.
    pub session_within: Duration,
    /// How long a page may take to arrive.
    pub fetch_within: Duration,
    /// How long an upload may take to be decided.
    pub upload_within: Duration,
    /// How long a chunk of a snapshot may take to arrive; the first one counts all rows.
    pub snapshot_within: Duration,
    /// How long digests may take to be made: they read all rows.
    pub digest_within: Duration,
    /// How many messages of one audience may wait to be read; more are dropped, and fetched.
    pub live_capacity: usize,
    /// The largest message that is read.
    pub message_bytes_max: usize,
}

/// Settings that cannot work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// Not the address of a server.
    #[error("not the address of a NATS server: {source}")]
    Server {
        /// What is wrong with it.
        source: io::Error,
    },
    /// No server is named.
    #[error("no NATS server is named")]
    NoServer,
    /// Some servers speak WebSocket and some do not.
    #[error("NATS servers are reached by WebSocket (ws, wss) or without (nats, tls), not by both at once")]
    MixedServers,
    /// A credentials file cannot be used.
    #[error("a login is the seed of a user's key pair, user:password, or the path of a credentials file: {source}")]
    Credentials {
        /// What is wrong with it as a file.
        source: io::Error,
    },
}

impl NatsSettings {
    /// Every default, for these servers: `nats://host:port`, `tls://…`, `ws://…` or `wss://…`, several separated by commas.
    ///
    /// # Errors
    /// [`SettingsError`] if that names no servers.
    pub fn new(servers: &str) -> Result<Self, SettingsError> {
        Ok(Self {
            servers: servers.parse()?,
            tls: Tls::default(),
            prefix: SubjectPrefix::default(),
            connect_within: Duration::from_secs(5),
            token_within: Duration::from_secs(30),
            reconnect_pause_max: Duration::from_secs(2),
            ping_every: Duration::from_secs(5),
            session_within: Duration::from_secs(5),
            fetch_within: Duration::from_secs(15),
            upload_within: Duration::from_secs(10),
            snapshot_within: Duration::from_secs(20),
            digest_within: Duration::from_secs(20),
            live_capacity: 64,
            message_bytes_max: 32 << 20,
        })
    }

    /// The same beneath another prefix.
    #[must_use]
    pub fn with_prefix(mut self, prefix: SubjectPrefix) -> Self {
        self.prefix = prefix;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_may_be_named_and_passwords_are_not_shown() {
        let settings = NatsSettings::new("nats://u:hunter2@a:1, nats://b:2").expect("two");
        assert_eq!(settings.servers.addresses().len(), 2);
        assert_eq!(settings.servers.to_string(), "a:1, b:2");
        assert!(!format!("{settings:?}").contains("hunter2"), "{settings:?}");
        assert!(matches!(NatsSettings::new(" , "), Err(SettingsError::NoServer)));
        assert!(matches!(NatsSettings::new("ws://a,nats://b"), Err(SettingsError::MixedServers)));
        NatsSettings::new("wss://a,ws://b:1").expect("WebSocket alone");
        assert!(matches!(NatsSettings::new("nats://:::"), Err(SettingsError::Server { .. })));
    }
}
