//! `serve` starts from its environment, serves, and ends tidily when told to.

use synchrotron_testkit::free_port;

use crate::database::Database;
use crate::nats_config::{NATS_SECRET, nats};
use crate::process::{Running, SECRET, run};

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    let database = Database::create().await;
    let nats = nats("test-binary").await;
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("NATS_URL", nats.url()),
        ("SYNCHROTRON_NATS_SECRET", NATS_SECRET),
        ("SYNCHROTRON_NATS_PREFIX", "test-binary"),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ];
    let server = Running::start(&["serve"], &environment);
    server.ready(&address).await;
    // Beside one that serves, the schema is up to date.
    let other = format!("127.0.0.1:{}", free_port());
    let second = Running::start(&["serve", "--no-migrate", "--listen", &other], &environment);
    second.ready(&other).await;
    assert_eq!((server.stop().await, second.stop().await), (Some(0), Some(0)));
}

#[tokio::test]
async fn what_is_wrong_is_one_line_and_an_exit_code() {
    let listen = ("SYNCHROTRON_LISTEN", "127.0.0.1:0");
    let tables = ("SYNCHROTRON_TABLES", "notes");
    let secret = ("SYNCHROTRON_JWT_SECRET", SECRET);
    let nowhere = ("DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/nowhere");
    let guessable = run(&["serve"], &[listen, tables, nowhere, ("SYNCHROTRON_JWT_SECRET", "guessable")]);
    guessable.assert_complains(2, &["9 bytes"]);
    let away = run(&["serve"], &[listen, tables, nowhere, secret]);
    away.assert_complains(1, &["postgres refused to connect"]);
    assert!(!away.stderr.contains("hunter2"), "{}", away.stderr);

    let mut database = Database::create().await;
    database.execute("DROP VIEW synchrotron.user_audiences CASCADE").await;
    let blind = run(&["serve"], &[listen, tables, ("DATABASE_URL", &database.url), secret]);
    blind.assert_complains(1, &["synchrotron.user_audiences", "to mend it: CREATE SCHEMA IF NOT EXISTS"]);
}
