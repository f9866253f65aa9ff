//! The binary starts from its environment, serves, and ends tidily when told to.
#![cfg(unix)]

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_postgres::PgConnection;
use synchrotron_testkit::{free_port, wait_for};

const SCHEMA: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE notes (id text PRIMARY KEY, audience_key text NOT NULL);
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT ''::text AS user_id, ''::text AS audience_key WHERE false;
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO synchrotron_user;";
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
        ("SYNCHROTRON_JWT_SECRET", "the secret of these tests"),
    ]);
    let ready = format!("http://{address}/readyz");
    let is_ready = async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status().is_success()).then_some(());
    wait_for("the server to be ready", PATIENCE, is_ready).await.expect("ready");
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
