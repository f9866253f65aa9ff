//! TLS, WebSocket, several servers, other logins: other ways to the same NATS.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use synchrotron_core::model::ClientId;
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::wire::SessionRequest;
use synchrotron_nats::link::Login;
use synchrotron_nats::{NatsNetwork, NatsSettings, Tls};
use synchrotron_testkit::{NatsOptions, NatsServer, free_port, wait_for};
use tempfile::TempDir;
use uuid::Uuid;

use crate::stack::{PATIENCE, Stack, conf, prefix, token, user_id};

/// An authority, and a certificate of loopback that it signed, as files.
struct Certificates {
    folder: TempDir,
}

impl Certificates {
    fn make() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut authority = CertificateParams::new(Vec::new()).expect("sound");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("signs");
        let key = KeyPair::generate().expect("a key");
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let certificate = CertificateParams::new(names).expect("sound").signed_by(&key, &authority).expect("signs");
        let made = Self { folder };
        let write = |name, text: String| std::fs::write(made.path(name), text).expect("writes");
        write("authority.pem", authority.pem());
        write("certificate.pem", certificate.pem());
        write("key.pem", key.serialize_pem());
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn tls(&self) -> Tls {
        Tls { authorities: vec![self.path("authority.pem")], ..Tls::default() }
    }
}

async fn is_served(url: &str, tls: Tls, stack: &Stack) {
    stack.allow("alice", "project:1").await;
    let mut settings = NatsSettings::new(url).expect("a URL").with_prefix(prefix());
    settings.tls = tls;
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let token = Arc::new(StaticToken::new(token("alice", 3_600)));
    let network = NatsNetwork::connect(settings, user_id("alice"), client_id, token).await;
    let session = wait_for("a session", PATIENCE, async || network.session(&SessionRequest { client_id }).await.ok());
    session.await.unwrap_or_else(|error| panic!("{url}: {error}"));
    network.subscribe(&[crate::stack::key("project:1")]).await.expect("subscribes");
}

#[tokio::test]
async fn everyone_may_be_encrypted() {
    let (certificates, websocket) = (Certificates::make(), free_port());
    let mut conf = conf();
    conf.websocket = Some(format!("127.0.0.1:{websocket}"));
    conf.tls = Some((certificates.path("certificate.pem"), certificates.path("key.pem")));
    let nats = NatsServer::start(NatsOptions::default().with_config(conf.to_string())).await.expect("nats-server");
    // The server's own connections are encrypted, too: NATS asks for it.
    let stack = Stack::start_on(&nats, |api| api.tls_authorities = vec![certificates.path("authority.pem")]).await;
    let port = nats.port().expect("ours");
    is_served(&format!("tls://127.0.0.1:{port}"), certificates.tls(), &stack).await;
    is_served(&format!("wss://127.0.0.1:{websocket}"), certificates.tls(), &stack).await;

    let strangers = NatsSettings::new(&format!("tls://127.0.0.1:{port}")).expect("a URL").with_prefix(prefix());
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let token = Arc::new(StaticToken::new(token("alice", 3_600)));
    let network = NatsNetwork::connect(strangers, user_id("alice"), client_id, token).await;
    is_served(&format!("nats://127.0.0.1:{port}"), certificates.tls(), &stack).await;
    assert_eq!(network.connects(), 0, "a certificate of an authority that nobody knows is believed");
}

#[tokio::test]
async fn a_browser_or_a_firewall_may_want_websocket_and_a_server_may_be_away() {
    let websocket = free_port();
    let mut conf = conf();
    conf.websocket = Some(format!("127.0.0.1:{websocket}"));
    let nats = NatsServer::start(NatsOptions::default().with_config(conf.to_string())).await.expect("nats-server");
    let stack = Stack::start_on(&nats, |_| {}).await;
    is_served(&format!("ws://127.0.0.1:{websocket}"), Tls::default(), &stack).await;
    is_served(&format!("nats://127.0.0.1:1,{}", nats.url()), Tls::default(), &stack).await;
}

#[tokio::test]
async fn servers_may_log_in_as_an_operator_wants() {
    let Login::Nkey(seed) = conf().keys.server_login() else { panic!("a key pair") };
    let key = nkeys::KeyPair::from_seed(&seed).expect("a seed").public_key();
    let with_password = conf().to_string().replace(&format!("nkey: {key}"), "user: operator, password: hunter2");
    let config = with_password.replace(&key, "operator");
    let nats = NatsServer::start(NatsOptions::default().with_config(config)).await.expect("nats-server");
    let login = "operator:hunter2".parse().expect("a password");
    let stack = Stack::start_on(&nats, |api| api.login = Some(login)).await;
    is_served(nats.url(), Tls::default(), &stack).await;
}
