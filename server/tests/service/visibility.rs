//! Row Level Security of the sync tables themselves.

use sqlx_core::executor::Executor;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::Postgres;
use synchrotron_core::model::Effect;

use crate::fixture::{Theatre, columns, note, patch};

async fn theatre_of_two() -> Theatre {
    let theatre = Theatre::open().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let of = |row: &str, key: &str| patch("seats", row, key, Effect::Insert(columns([])));
    alice.sync(vec![alice.action(10, vec![of("a1", "project:a"), note("n", "alice")])]).await;
    bob.sync(vec![bob.action(10, vec![of("q1", "project:q")])]).await;
    theatre
}

/// RLS-01
#[tokio::test]
async fn each_user_fetches_its_own() {
    let theatre = theatre_of_two().await;
    let ids = |records: Vec<synchrotron_core::wire::LogRecord>| -> Vec<String> {
        records.iter().flat_map(|record| &record.rows).map(|row| row.row_id.to_string()).collect()
    };
    assert_eq!(ids(theatre.device("alice").catch_up().await), ["a1", "n"]);
    assert_eq!(ids(theatre.device("bob").catch_up().await), ["q1"]);
    assert!(theatre.device("nobody").catch_up().await.is_empty());
    let audiences = theatre.service.audiences_of(&crate::fixture::principal("alice").user_id).await.expect("audiences");
    let audiences: Vec<&str> = audiences.iter().map(synchrotron_core::model::AudienceKey::as_str).collect();
    assert_eq!(audiences, ["project:a", "project:p", "user:alice"]);
}

/// RLS-04: no setting lets a user's role see more; the server's own role sees everything whatever is set.
#[tokio::test]
async fn settings_alone_open_nothing() {
    let theatre = theatre_of_two().await;
    let counts = [
        ("synchrotron_user", "alice", "action_records", 1),
        ("synchrotron_user", "alice", "action_modified_rows", 2),
        ("synchrotron_user", "alice", "action_audiences", 2),
        ("synchrotron_user", "bob", "action_records", 1),
        ("synchrotron_user", "bob", "action_modified_rows", 1),
        ("synchrotron_user", "", "action_records", 0),
        ("synchrotron_user", "nobody", "audience_heads", 0),
        ("none", "alice", "action_records", 2),
    ];
    for (role, user, table, expected) in counts {
        let mut tx = theatre.pool.begin().await.expect("begins");
        let settings = format!(
            "SELECT set_config('role', '{role}', true), set_config('synchrotron.user_id', '{user}', true),
             set_config('synchrotron.internal_materializer', 'true', true)"
        );
        tx.execute(AssertSqlSafe(settings)).await.expect("sets");
        let sql = format!("SELECT count(*) FROM synchrotron.{table}");
        let count: i64 = query_scalar::<Postgres, _>(AssertSqlSafe(sql)).fetch_one(&mut *tx).await.expect("counts");
        assert_eq!(count, expected, "{role} {user} {table}");
    }
}

#[tokio::test]
async fn a_users_role_writes_no_log_and_reads_no_secrets() {
    let theatre = theatre_of_two().await;
    let forbidden = [
        "UPDATE synchrotron.audience_heads SET head = 0",
        "DELETE FROM synchrotron.action_records",
        "INSERT INTO synchrotron.action_audiences VALUES ('project:q', 1, gen_random_uuid(), gen_random_uuid())",
        "SELECT * FROM synchrotron.clients",
        "SELECT * FROM synchrotron.upload_outcomes",
        "SELECT * FROM synchrotron.outbox",
        "SELECT synchrotron.audiences_of('bob')",
        "SELECT synchrotron.lock_heads(ARRAY['x'], ARRAY['x'])",
        "SELECT synchrotron.admit_role('synchrotron_user')",
    ];
    for sql in forbidden {
        let mut tx = theatre.pool.begin().await.expect("begins");
        tx.execute("SET LOCAL ROLE synchrotron_user").await.expect("acts");
        let error = tx.execute(AssertSqlSafe(sql)).await.expect_err(sql);
        let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
        assert_eq!(code.as_deref(), Some("42501"), "{sql}: {error}");
    }
}
