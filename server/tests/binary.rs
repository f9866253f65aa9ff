//! The binary starts from its environment, serves, and ends tidily when told to.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use jsonwebtoken::{EncodingKey, Header};
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{ClientId, Cursors};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::wire::{FetchRequest, SessionRequest};
use synchrotron_http::HttpNetwork;
use synchrotron_testkit::{free_port, wait_for};
use tokio::sync::mpsc;
use uuid::Uuid;

const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE notes (id text PRIMARY KEY, audience_key text NOT NULL);
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT ''::text AS user_id, ''::text AS audience_key WHERE false;
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO synchrotron_user;";
const SECRET: &str = "the secret of these tests";
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends the process with the test, whatever the test does.
struct Binary(Child);

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended already.
        let (_, _) = (self.0.kill(), self.0.wait());
    }
}

fn binary(environment: &[(&str, &str)]) -> Binary {
    let mut command = Command::new(env!("CARGO_BIN_EXE_synchrotron-server"));
    for name in ["DATABASE_URL", "NATS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"] {
        command.env_remove(name);
    }
    Binary(command.envs(environment.iter().copied()).stdout(Stdio::null()).spawn().expect("starts"))
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("binary").await;
    let database = database.expect("a database");
    let mut connection = PgConnection::connect(&database).await.expect("connects");
    connection.execute(SCHEMA).await.expect("the app's schema");
    let nats = synchrotron_testkit::nats().await.expect("nats-server");
    let (endpoint, mut collected) = collector().await;
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = binary(&[
        ("DATABASE_URL", &database),
        ("NATS_URL", nats.url()),
        ("SYNCHROTRON_NATS_PREFIX", "test-binary"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ]);
    let ready = format!("http://{address}/readyz");
    let is_ready = async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
    wait_for("the server to be ready", PATIENCE, is_ready).await.expect("ready");
    fetch(&address).await;
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().expect("runs");
    assert!(told.success());
    let ended = wait_for("the server to end", PATIENCE, async || server.0.try_wait().expect("waits")).await;
    assert_eq!(ended.expect("ends").code(), Some(0));
    if cfg!(feature = "otlp") {
        let sent = collected.recv().await.expect("what was left was sent before the end");
        assert!(sent.windows(5).any(|name| name == b"fetch"), "no span of the request");
    }
}

/// Where spans may be sent, and the bodies that come.
async fn collector() -> (String, mpsc::UnboundedReceiver<Bytes>) {
    let (bodies, collected) = mpsc::unbounded_channel();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let take = async move |body: Bytes| drop(bodies.send(body));
    let app = Router::new().route("/v1/traces", post(take));
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, collected)
}

/// One request that makes a span.
async fn fetch(address: &str) {
    let claims = serde_json::json!({ "sub": "alice", "exp": 4_000_000_000_i64 });
    let token = jsonwebtoken::encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
    let tokens = Arc::new(StaticToken::new(token.expect("signs")));
    let network = HttpNetwork::new(&format!("http://{address}"), tokens).expect("a URL");
    let client_id = ClientId::from_uuid(Uuid::from_u128(1));
    let epoch = network.session(&SessionRequest { client_id }).await.expect("a session").epoch;
    let request = FetchRequest { client_id, epoch, cursors: Cursors::new() };
    network.fetch(&request).await.expect("a page");
}

#[tokio::test]
async fn what_is_wrong_ends_it_with_a_failure() {
    let mut server = binary(&[
        ("DATABASE_URL", "postgres://127.0.0.1:1/nowhere"),
        ("SYNCHROTRON_LISTEN", "127.0.0.1:0"),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", "guessable"),
    ]);
    let ended = wait_for("the server to end", PATIENCE, async || server.0.try_wait().expect("waits")).await;
    assert_eq!(ended.expect("ends").code(), Some(1));
}
