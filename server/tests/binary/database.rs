//! A database with an app's schema in which `check` finds nothing.

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;
use synchrotron_testkit::Postgres;

/// Who sees what; each lookup by user is an index's.
const MEMBERS: &str = "
    DO $$ BEGIN CREATE ROLE synchrotron_user NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    CREATE TABLE members (user_id text, project_id text, PRIMARY KEY (user_id, project_id));
    CREATE SCHEMA IF NOT EXISTS synchrotron;
    CREATE VIEW synchrotron.user_audiences AS SELECT user_id, 'project:' || project_id AS audience_key FROM members;
    GRANT USAGE ON SCHEMA synchrotron TO synchrotron_user;
    GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;";

/// One database, and its URL.
pub(crate) struct Database {
    pub(crate) url: String,
    connection: PgConnection,
}

impl Database {
    /// With memberships and a sound table `notes`.
    pub(crate) async fn create() -> Self {
        Self::create_on(synchrotron_testkit::postgres().await.expect("postgres")).await
    }

    /// The same, on a Postgres of the test's own.
    pub(crate) async fn create_on(postgres: &Postgres) -> Self {
        let mut database = Self::empty_on(postgres).await;
        database.execute(MEMBERS).await;
        database.execute(&sound("notes")).await;
        database
    }

    pub(crate) async fn empty() -> Self {
        Self::empty_on(synchrotron_testkit::postgres().await.expect("postgres")).await
    }

    /// Nothing at all, on a Postgres of the test's own.
    pub(crate) async fn empty_on(postgres: &Postgres) -> Self {
        let url = postgres.create_database("binary").await.expect("a database");
        let connection = PgConnection::connect(&url).await.expect("connects");
        Self { url, connection }
    }

    pub(crate) async fn execute(&mut self, sql: &str) {
        let done = self.connection.execute(AssertSqlSafe(sql)).await;
        done.unwrap_or_else(|error| panic!("{error}: {sql}"));
    }
}

/// A table in which nothing is to be mended, with a policy for each command.
pub(crate) fn sound(name: &str) -> String {
    let mine = "(audience_key IN (SELECT audience_key FROM synchrotron.user_audiences \
        WHERE user_id = current_setting('synchrotron.user_id', true)))";
    format!(
        "CREATE TABLE {name} (id text PRIMARY KEY, audience_key text NOT NULL, body text);
        CREATE INDEX {name}_audience ON {name} (audience_key);
        GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO synchrotron_user;
        ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY s ON {name} FOR SELECT USING {mine};
        CREATE POLICY i ON {name} FOR INSERT TO synchrotron_user WITH CHECK {mine};
        CREATE POLICY u ON {name} FOR UPDATE USING {mine};
        CREATE POLICY d ON {name} FOR DELETE USING {mine};"
    )
}
