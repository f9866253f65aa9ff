//! What a server refuses to start on.

use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgPoolOptions;
use synchrotron_core::model::TableName;
use synchrotron_server::StartError;
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;

use crate::fixture::create_database;

async fn start(sql: &str, table: &str) -> Result<Service, StartError> {
    let url = create_database(sql).await;
    let settings =
        Settings::new(url, vec![TableName::new(table).expect("a name")], b"a secret of these tests".as_slice());
    Service::connect(&settings).await
}

#[tokio::test]
async fn what_is_missing_or_unsafe_is_named() {
    let table = |columns: &str| format!("CREATE TABLE t ({columns})");
    let cases = [
        (String::new(), "absent", "NoTable"),
        ("DROP VIEW synchrotron.user_audiences CASCADE".to_owned(), "seats", "NoUserAudiences"),
        (
            "DROP VIEW synchrotron.user_audiences CASCADE; CREATE VIEW synchrotron.user_audiences AS SELECT 1 AS user_id, \
             'x'::text AS audience_key"
                .to_owned(),
            "seats",
            "UserAudiencesColumn",
        ),
        (table("id text PRIMARY KEY"), "t", "NoAudienceKey"),
        (table("id text PRIMARY KEY, audience_key int"), "t", "NoAudienceKey"),
        (table("id int PRIMARY KEY, audience_key text"), "t", "PrimaryKey"),
        (table("id text, audience_key text"), "t", "PrimaryKey"),
        (table("id text, audience_key text, PRIMARY KEY (id, audience_key)"), "t", "PrimaryKey"),
        ("CREATE VIEW v AS SELECT 1 AS id".to_owned(), "v", "NotTrackable"),
        (String::new(), "pg_class", "NotTrackable"),
    ];
    for (sql, table, expected) in cases {
        let error = start(&sql, table).await.expect_err(expected);
        assert!(format!("{error:?}").starts_with(expected), "{expected}: {error:?}");
    }
}

/// A composite type, also inside a domain or an array; a generated column of one is Postgres's own matter.
#[tokio::test]
async fn typ_a_column_of_a_composite_type_is_refused_by_name() {
    let types = "CREATE TYPE pair AS (x int, y text); CREATE DOMAIN checked AS pair CHECK (VALUE IS NOT NULL); \
                 CREATE DOMAIN list AS checked[];";
    for (column_type, told) in [("pair", "public.pair"), ("pair[]", "public.pair[]"), ("list", "public.list")] {
        let sql = format!("{types} CREATE TABLE t (id text PRIMARY KEY, audience_key text, \"a b\" {column_type})");
        let error = start(&sql, "t").await.expect_err(column_type);
        assert_eq!(
            error.to_string(),
            format!("column a b of table t is of type {told}: composite types are not synced, use jsonb or columns")
        );
    }
    let generated = "CREATE TYPE pair AS (x int, y text); CREATE TABLE t (id text PRIMARY KEY, audience_key text, \
                     twin pair GENERATED ALWAYS AS (ROW(1, id)::pair) STORED)";
    start(generated, "t").await.expect("starts");
}

#[tokio::test]
async fn the_role_of_users_must_be_bound_by_policies() {
    let url = create_database("").await;
    let tables = vec![TableName::new("seats").expect("a name")];
    let mut settings = Settings::new(url, tables, b"a secret of these tests".as_slice());
    settings.app_role = "postgres".to_owned();
    assert!(matches!(Service::connect(&settings).await, Err(StartError::AppRoleUnbound { .. })));
    settings.app_role = "no such role".to_owned();
    assert!(matches!(Service::connect(&settings).await, Err(StartError::NoAppRole { .. })));
}

#[tokio::test]
async fn several_servers_start_at_once_and_again() {
    let url = create_database("").await;
    let tables = vec![TableName::new("seats").expect("a name")];
    let settings = Settings::new(url.clone(), tables, b"a secret of these tests".as_slice());
    let starts = (0..4).map(|_| {
        let settings = settings.clone();
        tokio::spawn(async move { Service::connect(&settings).await })
    });
    for started in futures::future::join_all(starts).await {
        assert!(started.expect("no panic").expect("starts").ready().await);
    }
    let pool = PgPoolOptions::new().connect(&url).await.expect("connects");
    pool.execute(AssertSqlSafe("UPDATE synchrotron.schema_migrations SET checksum = '\\x00'")).await.expect("changes");
    assert!(matches!(Service::connect(&settings).await, Err(StartError::Migrations(_))));
}
