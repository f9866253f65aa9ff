//! One thing that is wrong, or worth knowing.

use std::fmt;

use serde::Serialize;

use crate::StartError;
use crate::settings::SettingsError;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// A server does not start, or serves nobody, or serves what it should not.
    Error,
    /// Something is slow, or is refused that an app may want.
    Warning,
    /// As it is, and worth knowing.
    Info,
}

/// One thing that is wrong, or worth knowing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What kind of thing, for programs: `no_policy`.
    pub kind: &'static str,
    /// Which table, view, role, stream or server.
    #[serde(rename = "where")]
    pub place: String,
    /// What is so, for people.
    pub what: String,
    /// SQL that mends it, whole statements for psql, or a command of NATS's; names in angle brackets are the app's to choose.
    pub remedy: Option<String>,
}

impl Finding {
    /// Brings findings into the order in which they are mended: what the others' remedies need comes first, then the worst.
    pub fn sort(findings: &mut [Self]) {
        findings.sort_by_key(|finding| (finding.kind != "schema_behind", finding.level));
    }

    /// The same at another level.
    pub(super) fn at_level(self, level: Level) -> Self {
        Self { level, ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        };
        write!(f, "{level}: {}: {} [{}]", self.place, self.what, self.kind)?;
        match &self.remedy {
            Some(remedy) => write!(f, "\n    {remedy}"),
            None => Ok(()),
        }
    }
}

impl From<StartError> for Finding {
    fn from(fault: StartError) -> Self {
        let (kind, place) = kind_and_place(&fault);
        Self { level: Level::Error, kind, place, what: fault.to_string(), remedy: fault.remedy() }
    }
}

fn kind_and_place(fault: &StartError) -> (&'static str, String) {
    let table = |table: &synchrotron_core::model::TableName| format!("table {table}");
    let role = |role: &str| format!("role {role}");
    let view = || "view synchrotron.user_audiences".to_owned();
    let schema = || "schema synchrotron".to_owned();
    match fault {
        StartError::Settings(SettingsError::NoDatabase) => ("no_database", "settings".to_owned()),
        StartError::Settings(_) => ("settings", "settings".to_owned()),
        StartError::Database { .. } => ("postgres", "postgres".to_owned()),
        StartError::PostgresTooOld { .. } => ("postgres_too_old", "postgres".to_owned()),
        StartError::Migrations(_) => ("schema_changed", schema()),
        StartError::SchemaAhead { .. } => ("schema_ahead", schema()),
        StartError::SchemaBehind { .. } => ("schema_behind", schema()),
        StartError::NoUserAudiences => ("no_user_audiences", view()),
        StartError::UserAudiencesColumn { .. } => ("user_audiences_column", view()),
        StartError::UserAudiencesDenied { .. } => ("user_audiences_denied", view()),
        StartError::NoTable { table: name, .. } => ("no_table", table(name)),
        StartError::NotTrackable { table: name, .. } => ("not_trackable", table(name)),
        StartError::PrimaryKey { table: name, .. } => ("primary_key", table(name)),
        StartError::NoAudienceKey { table: name, .. } => ("no_audience_key", table(name)),
        StartError::ColumnType { table: name, .. } => ("column_type", table(name)),
        StartError::CompositeColumn { table: name, .. } => ("composite_column", table(name)),
        StartError::ServerRoleFiltered { table: name, .. } => ("server_role_filtered", table(name)),
        StartError::AppRoleOwns { table: name, .. } => ("app_role_owns", table(name)),
        StartError::Capture { table: name, .. } => ("no_capture", table(name)),
        StartError::NoAppRole { role: name } => ("no_app_role", role(name)),
        StartError::AppRoleNotMade { role: name, .. } => ("no_app_role", role(name)),
        StartError::AppRoleUnbound { role: name } => ("app_role_unbound", role(name)),
        StartError::AppRoleNotOurs { role: name, .. } => ("app_role_not_ours", role(name)),
    }
}
