//! Why a server cannot start.

use synchrotron_core::model::TableName;

use crate::pg::{migration_words, words};
use crate::settings::SettingsError;

/// A fact about the settings or the database that makes serving impossible or unsafe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Postgres refused, or cannot be reached.
    #[error("postgres refused to {doing}: {}", words(source))]
    Database {
        /// What was asked of it.
        doing: &'static str,
        /// Its answer.
        source: sqlx_core::Error,
    },
    /// The schema could not be brought up to date.
    #[error("migrations: {}", migration_words(.0))]
    Migrations(#[from] sqlx_core::migrate::MigrateError),
    /// The schema is newer than this build.
    #[error("the schema synchrotron has version {version}, this build knows {needed}: run a newer build")]
    SchemaAhead {
        /// A version that this build does not know.
        version: i64,
        /// The newest that it knows.
        needed: i64,
    },
    /// The schema is older than this build, which was told not to migrate.
    #[error("the schema synchrotron has version {}, this build needs {needed}: run the command migrate", version.unwrap_or(0))]
    SchemaBehind {
        /// The newest that the database has.
        version: Option<i64>,
        /// The newest that this build knows.
        needed: i64,
    },
    /// Postgres is too old.
    #[error("postgres {actual} is too old, at least {min} is needed")]
    PostgresTooOld {
        /// Its major version.
        actual: i32,
        /// The least that works.
        min: i32,
    },
    /// The app's view is not there.
    #[error("view synchrotron.user_audiences(user_id, audience_key) is missing: it says who sees what")]
    NoUserAudiences,
    /// The app's view lacks a column.
    #[error("view synchrotron.user_audiences has no text column {column}")]
    UserAudiencesColumn {
        /// Which.
        column: &'static str,
    },
    /// The server's own role may not read the app's view.
    #[error("the server's role {server_role} may not read the view synchrotron.user_audiences")]
    UserAudiencesDenied {
        /// The role of the connection.
        server_role: String,
    },
    /// A tracked table is not there.
    #[error("tracked table {table} is not found on the search_path{}", did_you_mean(meant.as_deref()))]
    NoTable {
        /// Which.
        table: TableName,
        /// A table that is there and has a similar name.
        meant: Option<String>,
    },
    /// A tracked table is the server's own, or no table.
    #[error("{table} cannot be tracked: it is {found}")]
    NotTrackable {
        /// Which.
        table: TableName,
        /// What it is.
        found: &'static str,
    },
    /// A tracked table's primary key is not the one column `id` of type text or uuid.
    #[error("table {table} needs a primary key column id of type text or uuid; its key is ({found})")]
    PrimaryKey {
        /// Which.
        table: TableName,
        /// Its key's columns with their types.
        found: String,
    },
    /// A tracked table has no text column `audience_key`.
    #[error("table {table} needs a column audience_key of type text; its type is {}", found.as_deref().unwrap_or("none"))]
    NoAudienceKey {
        /// Which.
        table: TableName,
        /// The type of the column that it has under this name.
        found: Option<String>,
    },
    /// The triggers that capture plain SQL writes cannot be put on a tracked table.
    #[error(
        "cannot capture plain SQL writes to {table}: {}; the server's role must own it, or sql_writes be disabled",
        words(source)
    )]
    Capture {
        /// Which table.
        table: TableName,
        /// Postgres's answer.
        source: sqlx_core::Error,
    },
    /// A column that devices write has a composite type, or holds one.
    #[error(
        "column {column} of table {table} is of type {column_type}: composite types are not synced, use jsonb or columns"
    )]
    CompositeColumn {
        /// Which table.
        table: TableName,
        /// Which column.
        column: String,
        /// Its type.
        column_type: String,
    },
    /// The server's own role cannot see past a tracked table's policies.
    #[error(
        "row level security of table {table} applies to the server's own role {role}; it must own it or have BYPASSRLS"
    )]
    ServerRoleFiltered {
        /// Which table.
        table: TableName,
        /// The role of the connection.
        role: String,
    },
    /// A column's type has no text form that could be written back.
    #[error("column {column} of table {table} has type {found}, which no value can be written to")]
    ColumnType {
        /// Of which table.
        table: TableName,
        /// Which column.
        column: String,
        /// Its type.
        found: String,
    },
    /// The role that users act as does not exist.
    #[error("role {role}, which users act as, does not exist")]
    NoAppRole {
        /// Which.
        role: String,
    },
    /// The migrations would make the role that users act as, and may not.
    #[error("role {role} does not exist, and the server's role {server_role} may not create it")]
    AppRoleNotMade {
        /// Which.
        role: &'static str,
        /// The role of the connection.
        server_role: String,
    },
    /// The server's role may not act as the role of users.
    #[error("the server's role {server_role} is no member of role {role}, and may not make itself one")]
    AppRoleNotOurs {
        /// The role that users act as.
        role: String,
        /// The role of the connection.
        server_role: String,
    },
    /// The role that users act as owns a tracked table.
    #[error("role {role}, which users act as, owns table {table}: its policies would not hold")]
    AppRoleOwns {
        /// Which role.
        role: String,
        /// Which table.
        table: TableName,
    },
    /// The role that users act as is above policies.
    #[error("role {role} is above row level security: users must not act as it")]
    AppRoleUnbound {
        /// Which.
        role: String,
    },
}

impl StartError {
    /// For `map_err`: what was being done when Postgres refused.
    pub(crate) fn doing(doing: &'static str) -> impl FnOnce(sqlx_core::Error) -> Self {
        move |source| Self::Database { doing, source }
    }

    /// SQL that mends it, where there is some; names in angle brackets are the app's to choose.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        let table = |table: &TableName| quoted(table.as_str());
        Some(match self {
            // The view may be made before the server's own tables.
            Self::NoUserAudiences => format!("CREATE SCHEMA IF NOT EXISTS synchrotron; {USER_AUDIENCES}"),
            Self::UserAudiencesColumn { .. } => format!("DROP VIEW synchrotron.user_audiences; {USER_AUDIENCES}"),
            Self::UserAudiencesDenied { server_role } => {
                format!("GRANT SELECT ON synchrotron.user_audiences TO {};", quoted(server_role))
            }
            Self::NoTable { table: name, meant: None } => {
                format!("CREATE TABLE {} (id text PRIMARY KEY, audience_key text NOT NULL);", table(name))
            }
            Self::PrimaryKey { table: name, found } if found.is_empty() => {
                format!("ALTER TABLE {} ADD PRIMARY KEY (id);", table(name))
            }
            Self::PrimaryKey { table: name, found } if found.starts_with("id ") && !found.contains(',') => {
                format!("ALTER TABLE {} ALTER COLUMN id TYPE text;", table(name))
            }
            Self::NoAudienceKey { table: name, found: None } => {
                format!("ALTER TABLE {} ADD COLUMN audience_key text NOT NULL;", table(name))
            }
            Self::NoAudienceKey { table: name, found: Some(_) } => {
                format!("ALTER TABLE {} ALTER COLUMN audience_key TYPE text;", table(name))
            }
            Self::ColumnType { table: name, column, .. } | Self::CompositeColumn { table: name, column, .. } => {
                let (name, column) = (table(name), quoted(column));
                format!("ALTER TABLE {name} ALTER COLUMN {column} TYPE jsonb USING to_jsonb({column});")
            }
            Self::ServerRoleFiltered { role, .. } => format!("ALTER ROLE {} BYPASSRLS;", quoted(role)),
            Self::NoAppRole { role } => made(role),
            Self::AppRoleNotMade { role, server_role } => format!("{} {}", made(role), member(role, server_role)),
            // A role of another use is not to lose its rights.
            Self::AppRoleUnbound { role } if role == "synchrotron_user" => {
                format!("ALTER ROLE {} NOSUPERUSER NOBYPASSRLS;", quoted(role))
            }
            Self::AppRoleUnbound { .. } => {
                "CREATE ROLE synchrotron_user NOLOGIN NOINHERIT NOBYPASSRLS; -- and set app_role to it".to_owned()
            }
            Self::AppRoleNotOurs { role, server_role } => member(role, server_role),
            Self::AppRoleOwns { table: name, .. } => format!("ALTER TABLE {} OWNER TO CURRENT_USER;", table(name)),
            Self::Capture { table: name, .. } => format!("ALTER TABLE {} OWNER TO <the server's role>;", table(name)),
            Self::Settings(_)
            | Self::Database { .. }
            | Self::Migrations(_)
            | Self::SchemaAhead { .. }
            | Self::SchemaBehind { .. }
            | Self::PostgresTooOld { .. }
            | Self::PrimaryKey { .. }
            | Self::NoTable { .. }
            | Self::NotTrackable { .. } => return None,
        })
    }
}

const USER_AUDIENCES: &str = "CREATE VIEW synchrotron.user_audiences AS \
    SELECT user_id::text, 'project:' || project_id AS audience_key FROM <your memberships>;";

fn made(role: &str) -> String {
    format!("CREATE ROLE {} NOLOGIN NOINHERIT NOBYPASSRLS;", quoted(role))
}

fn member(role: &str, server_role: &str) -> String {
    format!("GRANT {} TO {};", quoted(role), quoted(server_role))
}

fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!(": did you mean {name}?")).unwrap_or_default()
}

/// An identifier for people to copy into SQL.
pub(crate) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
