//! `compact` and `epoch`: what an operator does to the log.

use crate::database::Database;
use crate::process::{SECRET, run};

/// An empty database whose server ran once.
async fn migrated() -> (Database, [(&'static str, String); 3]) {
    let database = Database::create().await;
    let environment = [
        ("DATABASE_URL", database.url.clone()),
        ("SYNCHROTRON_TABLES", "notes".to_owned()),
        ("SYNCHROTRON_JWT_SECRET", SECRET.to_owned()),
    ];
    (database, environment)
}

fn as_text<'a>(environment: &'a [(&'static str, String); 3]) -> Vec<(&'a str, &'a str)> {
    environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[tokio::test]
async fn cmp_04_compact_says_what_it_deleted() {
    let (mut database, environment) = migrated().await;
    let environment = as_text(&environment);
    let nothing = run(&["compact", "--json"], &environment);
    assert_eq!((nothing.code, nothing.json()["records"].as_u64()), (0, Some(0)), "{nothing:?}");
    database
        .execute(
            "INSERT INTO synchrotron.action_records (id, server_ingest_id, tag, args, client_id, user_id, clock, row_count,
                position_clock, position_client_id, position_action_id, slices, content_hash, byte_count, created_at)
            SELECT lpad(n::text, 32, '0')::uuid, n, 'x', '\\x80', lpad('7', 32, '0')::uuid, 'u', n, 0, n,
                lpad('7', 32, '0')::uuid, lpad(n::text, 32, '0')::uuid, '\\x90', '\\x00', 100,
                now() - (4 - n) * interval '10 days' FROM generate_series(1, 3) n",
        )
        .await;
    let two = run(&["compact", "--json"], &environment);
    assert_eq!((two.code, two.json()["records"].as_u64()), (0, Some(2)), "two are older than 14 days: {two:?}");
    let said = run(&["compact"], &environment);
    assert!(said.code == 0 && said.stdout.contains("records deleted     0"), "{said:?}");
}

#[tokio::test]
async fn an_epoch_begins_only_when_it_is_meant() {
    let (_database, environment) = migrated().await;
    let environment = as_text(&environment);
    assert_eq!(run(&["epoch"], &environment).code, 2);
    let first = run(&["epoch", "--yes", "--json"], &environment);
    let second = run(&["epoch", "--yes", "--json"], &environment);
    assert_eq!((first.code, second.code), (0, 0), "{first:?} {second:?}");
    assert_eq!(first.json()["begun"], second.json()["ended"]);
    assert_ne!(first.json()["begun"], second.json()["begun"]);
}
