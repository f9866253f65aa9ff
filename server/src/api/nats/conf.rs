//! The configuration of a nats-server that lets each user do what is theirs, and nothing else.
//!
//! Place in the journey: beside it; written once by the command `nats-config`, and by tests and demos for their own.
//!
//! The server's subjects and streams are in an account of their own. Devices are in another, which has no JetStream and
//! reaches of the first only what is exported to it: so no subject that a device names as the one to reply to leads into a
//! stream. Who devices are, NATS asks in a third account; the fourth is for the system's own events.

use std::fmt::{self, Write};
use std::path::PathBuf;

use synchrotron_nats::subjects::{SubjectPrefix, Subjects};

use super::NatsKeys;

/// Where the server's subjects and streams are.
pub(super) const SERVER_ACCOUNT: &str = "SYNC";
/// Where devices are.
pub(super) const CLIENTS_ACCOUNT: &str = "SYNC_CLIENTS";
const AUTH_ACCOUNT: &str = "SYNC_AUTH";
const SYSTEM_ACCOUNT: &str = "SYS";

/// A token of 16 KiB, the largest that is believed, and what else is said at the beginning of a connection.
const CONTROL_LINE_BYTES: usize = 32 << 10;
/// What one connection may hear of at once: an audience each, and more than any user is in.
const SUBSCRIPTIONS_MAX: usize = 1 << 18;
/// How long the server may take to say whether a token holds.
const AUTHORIZATION_SECONDS: u32 = 3;

/// The configuration of a nats-server; its text is written by `Display`.
#[derive(Debug)]
pub struct NatsConf {
    /// The keys of the servers that it is for.
    pub keys: NatsKeys,
    /// What every subject begins with.
    pub prefix: SubjectPrefix,
    /// Where clients connect.
    pub listen: String,
    /// Where it tells of itself over HTTP.
    pub monitor: Option<String>,
    /// Where clients connect by WebSocket.
    pub websocket: Option<String>,
    /// Its certificate and its key, for all connections.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The largest message: that of the largest upload.
    pub max_payload_bytes: usize,
    /// Where streams are kept.
    pub store_dir: PathBuf,
    /// How much they may hold, as nats-server writes sizes.
    pub max_file_store: String,
}

impl NatsConf {
    /// Every default, for servers with these keys.
    #[must_use]
    pub fn new(keys: NatsKeys) -> Self {
        Self {
            keys,
            prefix: SubjectPrefix::default(),
            listen: "0.0.0.0:4222".to_owned(),
            monitor: None,
            websocket: None,
            tls: None,
            max_payload_bytes: 8 << 20,
            store_dir: PathBuf::from("/data"),
            max_file_store: "4GB".to_owned(),
        }
    }

    fn write_transports(&self, out: &mut impl Write) -> fmt::Result {
        let tls = self.tls.as_ref();
        let tls = tls.map(|(certificate, key)| format!("tls {{ cert_file: {certificate:?}, key_file: {key:?} }}"));
        if let Some(tls) = &tls {
            writeln!(out, "{tls}")?;
        }
        if let Some(listen) = &self.websocket {
            let encryption = tls.as_deref().unwrap_or("no_tls: true");
            writeln!(out, "websocket {{\n    listen: {listen:?}\n    {encryption}\n}}")?;
        }
        Ok(())
    }

    fn write_accounts(&self, out: &mut impl Write) -> fmt::Result {
        let Self { keys, prefix, .. } = self;
        let [server, callout, system] = [&keys.server, &keys.callout, &keys.system].map(|pair| pair.public_key());
        let exports = Subjects::new(prefix.clone()).exports();
        writeln!(out, "max_control_line: {CONTROL_LINE_BYTES}\nmax_subscriptions: {SUBSCRIPTIONS_MAX}\naccounts {{")?;
        writeln!(out, "    {SERVER_ACCOUNT} {{\n        jetstream: enabled\n        users: [{{ nkey: {server} }}]")?;
        writeln!(out, "        exports: [")?;
        for service in &exports.services {
            writeln!(out, "            {{ service: \"{service}\", accounts: [{CLIENTS_ACCOUNT}] }}")?;
        }
        for stream in &exports.streams {
            writeln!(out, "            {{ stream: \"{stream}\", accounts: [{CLIENTS_ACCOUNT}] }}")?;
        }
        writeln!(out, "        ]\n    }}\n    {CLIENTS_ACCOUNT} {{\n        imports: [")?;
        for service in &exports.services {
            writeln!(out, "            {{ service: {{ account: {SERVER_ACCOUNT}, subject: \"{service}\" }} }}")?;
        }
        for stream in &exports.streams {
            writeln!(out, "            {{ stream: {{ account: {SERVER_ACCOUNT}, subject: \"{stream}\" }} }}")?;
        }
        writeln!(out, "        ]\n    }}")?;
        writeln!(out, "    {AUTH_ACCOUNT} {{ users: [{{ nkey: {callout} }}] }}")?;
        writeln!(out, "    {SYSTEM_ACCOUNT} {{ users: [{{ nkey: {system} }}] }}\n}}")?;
        writeln!(out, "system_account: {SYSTEM_ACCOUNT}\nauthorization {{\n    timeout: {AUTHORIZATION_SECONDS}")?;
        writeln!(out, "    auth_callout {{\n        issuer: {}", keys.issuer.public_key())?;
        writeln!(
            out,
            "        account: {AUTH_ACCOUNT}\n        auth_users: [{server}, {callout}, {system}]\n    }}\n}}"
        )
    }
}

impl fmt::Display for NatsConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, monitor, max_payload_bytes, store_dir, max_file_store, .. } = self;
        writeln!(f, "# Written by `synchrotron-server nats-config`; it holds no secret.")?;
        writeln!(f, "listen: {listen:?}")?;
        if let Some(monitor) = monitor {
            writeln!(f, "http: {monitor:?}")?;
        }
        self.write_transports(f)?;
        writeln!(f, "max_payload: {max_payload_bytes}")?;
        writeln!(f, "jetstream {{\n    store_dir: {store_dir:?}\n    max_file_store: {max_file_store}\n}}")?;
        self.write_accounts(f)
    }
}
