//! What the server's own role needs, and that who lacks it is told.

use sqlx_core::connection::Connection;
use sqlx_postgres::PgConnection;
use synchrotron_testkit::{Postgres, free_port};

use crate::database::{Database, sound};
use crate::process::{Running, SECRET, run};

/// The same database as another role.
fn url_of(database: &Database, role: &str) -> String {
    let mut url: url::Url = database.url.parse().expect("a URL");
    url.set_username(role).expect("has a user");
    url.set_password(Some(role)).expect("has a password");
    url.to_string()
}

/// The list in docs/apps.md: a role with these rights and no others serves.
#[tokio::test]
async fn the_rights_that_are_documented_are_enough() {
    let postgres = Postgres::start().await.expect("postgres");
    let mut database = Database::empty_on(&postgres).await;
    let rights = "
        CREATE ROLE server LOGIN PASSWORD 'server' BYPASSRLS;
        CREATE SCHEMA synchrotron AUTHORIZATION server;";
    database.execute(rights).await;
    let url = url_of(&database, "server");
    if PgConnection::connect(&url).await.is_err() {
        return; // A Postgres that was given by URL has its own rules of who may connect.
    }
    let environment = [("DATABASE_URL", url.as_str())];
    let refused = run(&["migrate"], &environment);
    refused.assert_complains(1, &["the server's role server may not create it", "to mend it: CREATE ROLE"]);
    assert!(!refused.stderr.contains("at line"), "{refused:?}");
    let remedy = refused.stderr.split_once("to mend it: ").expect("has one").1;
    database.execute(remedy.trim()).await;

    let app = "CREATE TABLE members (user_id text, project_id text, PRIMARY KEY (user_id, project_id));
        CREATE VIEW synchrotron.user_audiences AS SELECT user_id, 'project:' || project_id AS audience_key FROM members;
        GRANT SELECT ON synchrotron.user_audiences TO server, synchrotron_user;
        GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;";
    database.execute(app).await;
    database.execute(&sound("notes")).await;
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
        ("SYNCHROTRON_LISTEN", &address),
    ];
    let migrated = run(&["migrate"], &environment);
    assert_eq!(migrated.code, 0, "{migrated:?}");
    database.execute("GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON notes TO server").await;
    run(&["serve"], &environment).assert_complains(1, &["the server's role must own it"]);
    let uncaptured = [&environment[..], &[("SYNCHROTRON_SQL_WRITES_ENABLED", "false")]].concat();
    let server = Running::start(&["serve"], &uncaptured);
    server.ready(&address).await;
    assert_eq!((server.stop().await, run(&["check"], &uncaptured).code), (Some(0), 0));
    let checked = run(&["check"], &environment);
    assert!(checked.stdout.contains("ALTER TABLE public.notes OWNER TO \"server\";"), "{checked:?}");
    database.execute("ALTER TABLE notes OWNER TO server; ALTER ROLE server NOBYPASSRLS").await;
    let checked = run(&["check"], &environment);
    assert_eq!(checked.code, 0, "{checked:?}");
    let server = Running::start(&["serve"], &environment);
    server.ready(&address).await;
    assert_eq!(server.stop().await, Some(0));
}
