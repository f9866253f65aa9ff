//! Why a server cannot start.

use synchrotron_core::model::TableName;

use crate::settings::SettingsError;

/// A fact about the settings or the database that makes serving impossible or unsafe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings contradict themselves.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Postgres refused, or cannot be reached.
    #[error("postgres refused to {doing}: {source}")]
    Database {
        /// What was asked of it.
        doing: &'static str,
        /// Its answer.
        source: sqlx_core::Error,
    },
    /// The schema could not be brought up to date.
    #[error("migrations: {0}")]
    Migrations(#[from] sqlx_core::migrate::MigrateError),
    /// The app's view is not there.
    #[error("view synchrotron.user_audiences(user_id, audience_key) is missing: create it, it says who sees what")]
    NoUserAudiences,
    /// The app's view lacks a column.
    #[error("view synchrotron.user_audiences has no text column {column}")]
    UserAudiencesColumn {
        /// Which.
        column: &'static str,
    },
    /// A tracked table is not there.
    #[error("tracked table {table} is not found on the search_path")]
    NoTable {
        /// Which.
        table: TableName,
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
    #[error("table {table} needs a column audience_key of type text")]
    NoAudienceKey {
        /// Which.
        table: TableName,
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
    /// The role that users act as does not exist.
    #[error("role {role} does not exist, or the server's role is no member of it")]
    NoAppRole {
        /// Which.
        role: String,
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
}
