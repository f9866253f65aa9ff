//! `status` says how a deployment is, and fails if it is not well.

use serde_json::Value;
use synchrotron_testkit::free_port;

use crate::database::Database;
use crate::nats_config::{NATS_SECRET, nats};
use crate::process::{PATIENCE, Running, SECRET, run, wait_for};

/// A record of an hour ago, whose slice nobody has published.
const RECORD: &str = "
    INSERT INTO synchrotron.action_records (id, server_ingest_id, tag, args, client_id, user_id, clock, row_count,
        position_clock, position_client_id, position_action_id, slices, content_hash, byte_count, created_at)
    SELECT u, nextval('synchrotron.server_ingest_ids'), 'x', '\\x80', u, 'u', 1, 1, 1, u, u, '\\x90', '\\x00', 100,
        now() - interval '1 hour' FROM gen_random_uuid() u;
    INSERT INTO synchrotron.outbox (audience_key, prev, through, created_at)
        VALUES ('a', 0, 1, now() - interval '1 hour');
    INSERT INTO synchrotron.audience_heads (audience_key, head) VALUES ('a', 1);
    ANALYZE synchrotron.action_records; ANALYZE synchrotron.audience_heads";

#[tokio::test]
async fn it_reports_the_log_and_the_outbox() {
    let mut database = Database::create().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let before = run(&["status", "--json"], &environment);
    assert_eq!((before.code, &before.json()["log"]), (1, &Value::Null));
    assert_eq!(run(&["migrate"], &environment).code, 0);
    let url = database.url.clone();
    let environment = [("DATABASE_URL", url.as_str())];
    let fresh = run(&["status", "--json"], &environment);
    assert_eq!((fresh.code, &fresh.json()["log"]["server_ingest_id"]), (0, &Value::from(0)), "{fresh:?}");
    assert_eq!(fresh.json()["log"]["records"], Value::Null);

    database.execute(RECORD).await;
    let status = run(&["status", "--json"], &environment).json();
    let log = &status["log"];
    for (field, expected) in [("server_ingest_id", 1), ("records", 1), ("audiences", 1)] {
        assert_eq!(log[field], expected, "{field}: {log}");
    }
    assert_eq!(log["outbox"]["slices"], 1);
    for age in [&log["oldest_record_seconds"], &log["outbox"]["oldest_seconds"]] {
        assert!((3_600..3_700).contains(&age.as_i64().expect("an age")), "{log}");
    }
    assert!(log["epoch"].as_str().is_some_and(|epoch| epoch.len() == 36), "{log}");
    assert_eq!(status["schema_version"], status["schema_version_needed"]);

    let people = run(&["status"], &environment).stdout;
    for part in ["postgres  ", "records            about 1\n", "1 slices wait", "nats               not configured"] {
        assert!(people.contains(part), "{part}: {people}");
    }
}

#[tokio::test]
async fn it_reports_nats_with_its_streams() {
    let database = Database::create().await;
    let nats = nats("test-status").await;
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("NATS_URL", nats.url()),
        ("SYNCHROTRON_NATS_SECRET", NATS_SECRET),
        ("SYNCHROTRON_NATS_PREFIX", "test-status"),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ];
    assert_eq!(run(&["migrate"], &environment).code, 0);
    let before = run(&["status", "--json"], &environment);
    assert_eq!((before.code, &before.json()["nats"]["streams"][0]["exists"]), (0, &Value::from(false)), "{before:?}");
    let server = Running::start(&["serve"], &environment);
    server.ready(&address).await;
    let there = async || {
        let nats = run(&["status", "--json"], &environment).json()["nats"].clone();
        let streams = nats["streams"].as_array()?.iter().all(|stream| stream["exists"] == true);
        (streams && nats["streams"][0]["waiting"] == 0).then_some(nats)
    };
    let nats = wait_for("the streams and the consumer", PATIENCE, there).await.expect("there");
    assert_eq!((&nats["streams"][0]["name"], &nats["error"]), (&Value::from("TEST-STATUS_UP"), &Value::Null));
    assert!(nats["nats_server_version"].as_str().is_some_and(|version| version.starts_with("2.")), "{nats}");
    assert_eq!(server.stop().await, Some(0));

    let away = run(&["status", "--json", "--nats-url=nats://u:hunter2@127.0.0.1:1"], &environment);
    assert_eq!((away.code, &away.json()["nats"]["nats_server_version"]), (1, &Value::Null));
    assert!(away.json()["nats"]["error"].is_string() && !away.stdout.contains("hunter2"), "{away:?}");
}
