//! What an operator does to NATS, and what becomes of the partitions of a process that is killed.

use serde_json::Value;
use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_testkit::free_port;

use crate::database::Database;
use crate::nats_config::{NATS_SECRET, nats};
use crate::process::{PATIENCE, Running, SECRET, run, wait_for};

/// Who reads how many partitions, as `holder:count`, sorted.
async fn shares(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.expect("connects");
    let sql = "SELECT holder || ':' || count(*) FROM synchrotron.leases WHERE expires_at > clock_timestamp() \
        GROUP BY holder ORDER BY holder";
    let rows = sqlx_core::query::query::<sqlx_postgres::Postgres>(sql).fetch_all(&mut connection).await;
    rows.expect("reads").iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn another_process_reads_what_a_killed_one_read() {
    let database = Database::create().await;
    let nats = nats("test-killed").await;
    let addresses = [(); 2].map(|()| format!("127.0.0.1:{}", free_port()));
    let environment = |number: usize| {
        [
            ("DATABASE_URL", database.url.as_str()),
            ("NATS_URL", nats.url()),
            ("SYNCHROTRON_NATS_SECRET", NATS_SECRET),
            ("SYNCHROTRON_NATS_PREFIX", "test-killed"),
            ("SYNCHROTRON_NATS_PARTITIONS", "3"),
            ("SYNCHROTRON_NATS_LEASE_SECONDS", "2"),
            ("SYNCHROTRON_LISTEN", &addresses[number]),
            ("SYNCHROTRON_TABLES", "notes"),
            ("SYNCHROTRON_JWT_SECRET", SECRET),
        ]
    };
    let mut killed = Running::start(&["serve"], &environment(0));
    killed.ready(&addresses[0]).await;
    let survivor = Running::start(&["serve"], &environment(1));
    survivor.ready(&addresses[1]).await;
    let shared = wait_for("both to read", PATIENCE, async || {
        let shares = shares(&database.url).await;
        (shares.len() == 2 && shares.iter().all(|share| share.ends_with(":1") || share.ends_with(":2")))
            .then_some(shares)
    });
    let shared = shared.await.expect("they share");
    killed.kill();
    let taken = wait_for("the survivor to read all", PATIENCE, async || {
        let shares = shares(&database.url).await;
        (shares.len() == 1 && shares[0].ends_with(":3")).then_some(shares)
    });
    let taken = taken.await.expect("taken over");
    assert!(shared.iter().any(|share| share[..36] == taken[0][..36]), "{shared:?} {taken:?}");
    assert_eq!(survivor.stop().await, Some(0));
    assert_eq!(shares(&database.url).await, [""; 0], "it gave all back");

    let done = run(&["republish", "--all", "--json"], &environment(1));
    assert_eq!((done.code, &done.json()["slices"]), (0, &Value::from(0)), "{done:?}");
}

#[tokio::test]
async fn republish_needs_nats() {
    let database = Database::create().await;
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
        ("SYNCHROTRON_NATS_SECRET", NATS_SECRET),
    ];
    run(&["republish"], &environment).assert_complains(2, &["no NATS is configured", "--nats-url"]);
    run(&["republish", "--nats-url=nats://127.0.0.1:1"], &environment).assert_complains(1, &["cannot be reached"]);
    assert_eq!(run(&["republish", "--newest=soon"], &environment).code, 2);
}

#[tokio::test]
async fn check_looks_at_the_streams_too() {
    let database = Database::create().await;
    let nats = nats("test-check").await;
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("SYNCHROTRON_TABLES", "notes"),
        ("NATS_URL", nats.url()),
        ("SYNCHROTRON_NATS_SECRET", NATS_SECRET),
        ("SYNCHROTRON_NATS_PREFIX", "test-check"),
    ];
    let sound = run(&["check", "--json"], &environment);
    assert_eq!(sound.code, 0, "{sound:?}");
    let given = [&environment[..], &[("SYNCHROTRON_NATS_MANAGE_STREAMS", "false")]].concat();
    let missing = run(&["check", "--json"], &given);
    let findings = missing.json();
    let kinds: Vec<&str> = findings.as_array().expect("a list").iter().filter_map(|f| f["kind"].as_str()).collect();
    assert_eq!((missing.code, kinds.iter().filter(|kind| **kind == "stream_missing").count()), (1, 2), "{missing:?}");
    let away =
        [&environment[..2], &[("NATS_URL", "nats://127.0.0.1:1"), ("SYNCHROTRON_NATS_SECRET", NATS_SECRET)]].concat();
    let away = run(&["check"], &away);
    assert!(
        away.code == 0 && away.stdout.contains("NATS at 127.0.0.1:1 cannot be reached"),
        "a server starts: {away:?}"
    );
    let open = [&environment[..2], &[("NATS_URL", nats.url()), ("SYNCHROTRON_JWT_SECRET", SECRET)]].concat();
    for command in ["check", "serve"] {
        run(&[command], &open).assert_complains(2, &["SYNCHROTRON_NATS_SECRET"]);
    }
}
