//! The binary starts from its environment, serves, and ends tidily when told to.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, ClientId};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::wire::{SessionRequest, SnapshotPosition, SnapshotRequest};
use synchrotron_http::HttpNetwork;
use synchrotron_testkit::{free_port, wait_for};
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
    for name in ["DATABASE_URL", "NATS_URL"] {
        command.env_remove(name);
    }
    Binary(command.envs(environment.iter().copied()).stdout(Stdio::null()).spawn().expect("starts"))
}

async fn wait_until_ready(address: &str) {
    let ready = format!("http://{address}/readyz");
    let is_ready = async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
    wait_for("the server to be ready", PATIENCE, is_ready).await.expect("ready");
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("binary").await;
    let database = database.expect("a database");
    let mut connection = PgConnection::connect(&database).await.expect("connects");
    connection.execute(SCHEMA).await.expect("the app's schema");
    let nats = synchrotron_testkit::nats().await.expect("nats-server");
    let address = format!("127.0.0.1:{}", free_port());
    let mut server = binary(&[
        ("DATABASE_URL", &database),
        ("NATS_URL", nats.url()),
        ("SYNCHROTRON_NATS_PREFIX", "test-binary"),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ]);
    wait_until_ready(&address).await;
    let told = Command::new("kill").args(["-TERM", &server.0.id().to_string()]).status().expect("runs");
    assert!(told.success());
    let ended = wait_for("the server to end", PATIENCE, async || server.0.try_wait().expect("waits")).await;
    assert_eq!(ended.expect("ends").code(), Some(0));
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

const ROWS: u64 = 100_000;

/// Two devices take the same large audience at the same time, and the process holds little of it at any moment.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn boot_06_two_hundred_thousand_rows_pass_through_little_memory() {
    let database = synchrotron_testkit::postgres().await.expect("postgres").create_database("binary").await;
    let database = database.expect("a database");
    let mut connection = PgConnection::connect(&database).await.expect("connects");
    connection.execute(SCHEMA).await.expect("the app's schema");
    connection
        .execute(
            "ALTER TABLE notes ADD title text, ADD body text; CREATE INDEX ON notes (audience_key);
             INSERT INTO notes SELECT 'note ' || n, 'all', 'title ' || n, repeat(md5(n::text), 3)
                 FROM generate_series(1, 100000) n;
             CREATE OR REPLACE VIEW synchrotron.user_audiences AS SELECT 'alice'::text AS user_id, 'all'::text AS audience_key;
             GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;
             GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;",
        )
        .await
        .expect("rows");
    let address = format!("127.0.0.1:{}", free_port());
    let server = binary(&[
        ("DATABASE_URL", &database),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ]);
    wait_until_ready(&address).await;
    let before = peak_kib(&server);
    let taken = tokio::join!(take_snapshot(&address), take_snapshot(&address));
    assert_eq!(taken, (ROWS, ROWS));
    let held = peak_kib(&server) - before;
    // All rows of one device as the process holds them are more than 50 MiB.
    assert!(held < 40 << 10, "{held} KiB more at its peak");
}

/// The most that the process ever held, as Linux tells it.
#[cfg(target_os = "linux")]
fn peak_kib(server: &Binary) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Takes all chunks over HTTP, and counts their rows.
#[cfg(target_os = "linux")]
async fn take_snapshot(address: &str) -> u64 {
    let claims = serde_json::json!({ "sub": "alice", "exp": 4_000_000_000_u64 });
    let token =
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
    let token = StaticToken::new(token.expect("signs"));
    let network = HttpNetwork::new(&format!("http://{address}"), std::sync::Arc::new(token)).expect("a URL");
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let epoch = network.session(&SessionRequest { client_id }).await.expect("a session").epoch;
    let audiences = vec![AudienceKey::new("all").expect("ok")];
    let mut request = SnapshotRequest { client_id, epoch, audiences, ids: Vec::new(), resume: None };
    let mut rows = 0;
    loop {
        let chunk = network.snapshot(&request).await.expect("a chunk");
        rows += chunk.rows.len() as u64;
        if chunk.last {
            return rows;
        }
        request.resume = Some(SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position });
    }
}
