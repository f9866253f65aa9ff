//! What an operator decides, as plain data; [`Settings::validate`] says what does not fit together.
//!
//! Place in the journey: read once, at start, by [`config`](crate::config). Each field is a key of the file by its serde
//! name, and has a default.
//!
//! Invariant: what is secret is never shown, neither by `Debug` nor by `Serialize`.

mod compaction;
mod error;
mod http;
mod jwt;
mod secret;
mod snapshots;
mod sql_writes;
mod supabase;
mod uploads;

pub(crate) mod millis;
pub(crate) mod seconds;

use std::fmt;

use serde::{Deserialize, Serialize, Serializer};
use synchrotron_core::model::TableName;

pub use compaction::CompactionSettings;
pub use error::SettingsError;
pub use http::HttpSettings;
pub use jwt::{Algorithm, JwtSettings, UnknownAlgorithm};
pub use secret::Secret;
pub use snapshots::SnapshotSettings;
pub use sql_writes::SqlWriteSettings;
pub use uploads::UploadSettings;

/// Everything that the server's core needs to be told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Where Postgres is. The role that it names owns the sync tables and sees past the tracked tables' policies.
    pub database_url: DatabaseUrl,
    /// Whether a server that starts brings the schema `synchrotron` up to date; otherwise it refuses one that is not.
    pub migrate: bool,
    /// The tracked tables, as clients name them; found along the connection's `search_path`.
    pub tables: Vec<TableName>,
    /// The role that users act as in Postgres; has neither BYPASSRLS nor tables of its own.
    pub app_role: String,
    /// Whose tokens are believed.
    pub jwt: JwtSettings,
    /// How far ahead of the server a record's clock may be, in milliseconds.
    pub max_clock_ahead_ms: i64,
    /// The largest upload that is taken, in bytes.
    pub max_upload_bytes: usize,
    /// The largest record within an upload, in bytes.
    pub max_record_bytes: usize,
    /// The size at which a page of `fetch` ends, in bytes. A page has at least one record, whatever its size.
    pub page_bytes_max: usize,
    /// Of which audiences an uploader must have seen everything.
    pub head_gate: HeadGate,
    /// The most connections to Postgres, beside those of snapshots and digests.
    #[serde(rename = "pool_connections")]
    pub pool_connections_max: u32,
    /// How uploads wait, and how they are taken together.
    pub uploads: UploadSettings,
    /// Where spans are sent: the base URL of an OpenTelemetry collector that takes OTLP over HTTP; nowhere, if not set.
    pub otlp_endpoint: Option<String>,
    /// What snapshots and digests may cost.
    pub snapshots: SnapshotSettings,
    /// How plain SQL writes reach devices.
    pub sql_writes: SqlWriteSettings,
    /// How long what is over is kept.
    pub compaction: CompactionSettings,
    /// What HTTP may cost.
    pub http: HttpSettings,
}

/// Of which audiences an uploading device must have seen all that other devices did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum HeadGate {
    /// Of every audience that its user sees: an action that reads one audience and writes another is safe.
    #[default]
    Visible,
    /// Of those that the upload writes to.
    Touched,
}

impl TryFrom<String> for HeadGate {
    type Error = SettingsError;

    fn try_from(name: String) -> Result<Self, SettingsError> {
        match name.as_str() {
            "visible" => Ok(Self::Visible),
            "touched" => Ok(Self::Touched),
            _ => Err(SettingsError::HeadGate),
        }
    }
}

/// A connection URL; it may hold a password and so is never shown. Empty by default, which is no URL.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct DatabaseUrl(String);

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { serializer.serialize_none() } else { serializer.serialize_str("…") }
    }
}

impl DatabaseUrl {
    /// Wraps a `postgres://` URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// The URL, password included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl(…)")
    }
}

/// Postgres cuts longer names.
const ROLE_BYTES_MAX: usize = 63;

impl Default for Settings {
    /// Every default; a database, tables and a secret are still to be named.
    fn default() -> Self {
        Self {
            database_url: DatabaseUrl::default(),
            migrate: true,
            tables: Vec::new(),
            app_role: "synchrotron_user".to_owned(),
            jwt: JwtSettings::default(),
            max_clock_ahead_ms: 60_000,
            max_upload_bytes: 8 << 20,
            max_record_bytes: 4 << 20,
            page_bytes_max: 512 << 10,
            head_gate: HeadGate::default(),
            pool_connections_max: 10,
            uploads: UploadSettings::default(),
            sql_writes: SqlWriteSettings::default(),
            compaction: CompactionSettings::default(),
            http: HttpSettings::default(),
            otlp_endpoint: None,
            snapshots: SnapshotSettings::default(),
        }
    }
}

impl Settings {
    /// Settings with every default, for these tables.
    #[must_use]
    pub fn new(database_url: impl Into<String>, tables: Vec<TableName>, jwt_secret: impl Into<Vec<u8>>) -> Self {
        Self {
            database_url: DatabaseUrl::new(database_url),
            tables,
            jwt: JwtSettings::with_secret(jwt_secret),
            ..Self::default()
        }
    }

    /// Checks what can be checked without a database.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), SettingsError> {
        self.validate_database()?;
        self.validate_schema()?;
        self.validate_tokens()?;
        self.validate_bounds()
    }

    /// Checks that a database is named.
    ///
    /// # Errors
    /// [`SettingsError::NoDatabase`].
    pub fn validate_database(&self) -> Result<(), SettingsError> {
        if self.database_url.as_str().is_empty() { Err(SettingsError::NoDatabase) } else { Ok(()) }
    }

    /// Checks the names of the tables and of the role.
    ///
    /// # Errors
    /// The first that cannot work.
    pub fn validate_schema(&self) -> Result<(), SettingsError> {
        if self.tables.is_empty() {
            return Err(SettingsError::NoTables);
        }
        for (index, table) in self.tables.iter().enumerate() {
            if self.tables[..index].contains(table) {
                return Err(SettingsError::TableTwice { table: table.clone() });
            }
        }
        if self.app_role.is_empty() || self.app_role.len() > ROLE_BYTES_MAX || self.app_role.contains('\0') {
            return Err(SettingsError::RoleName);
        }
        Ok(())
    }

    /// Checks what tokens are verified with.
    ///
    /// # Errors
    /// The first that cannot work.
    pub fn validate_tokens(&self) -> Result<(), SettingsError> {
        self.jwt.validate()
    }

    fn validate_bounds(&self) -> Result<(), SettingsError> {
        let at_least = |setting, actual: u64, min: u64| {
            if actual < min { Err(SettingsError::TooSmall { setting, actual, min }) } else { Ok(()) }
        };
        at_least("max_clock_ahead_ms", u64::try_from(self.max_clock_ahead_ms).unwrap_or(0), 1)?;
        at_least("max_record_bytes", self.max_record_bytes as u64, 1)?;
        at_least("max_upload_bytes", self.max_upload_bytes as u64, self.max_record_bytes as u64)?;
        at_least("page_bytes_max", self.page_bytes_max as u64, 1)?;
        at_least("pool_connections", self.pool_connections_max.into(), 1)?;
        self.uploads.validate()?;
        self.snapshots.validate()?;
        self.sql_writes.validate()?;
        self.http.validate()?;
        self.compaction.validate()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings::new(
            "postgres://u:hunter2@h/d",
            vec![TableName::new("t").expect("ok")],
            b"0123456789abcdef".as_slice(),
        )
    }

    #[test]
    fn defaults_are_valid_and_hide_their_secrets() {
        settings().validate().expect("valid");
        let shown = format!("{:?}", settings());
        assert!(!shown.contains("hunter2") && !shown.contains("48, 49"), "{shown}");
    }

    #[test]
    fn what_cannot_work_is_named() {
        let twice = Settings { tables: [settings().tables, settings().tables].concat(), ..settings() };
        assert!(matches!(twice.validate(), Err(SettingsError::TableTwice { .. })));
        let small = Settings { max_upload_bytes: 1, ..settings() };
        assert!(matches!(small.validate(), Err(SettingsError::TooSmall { setting: "max_upload_bytes", .. })));
        let nobody = SnapshotSettings { open_max: 0, ..SnapshotSettings::default() };
        let closed = Settings { snapshots: nobody, ..settings() };
        assert!(matches!(closed.validate(), Err(SettingsError::TooSmall { setting: "snapshots.open_max", .. })));
        let guessable = Settings { jwt: JwtSettings::with_secret([1]), ..settings() };
        assert!(matches!(guessable.validate(), Err(SettingsError::SecretTooShort { .. })));
    }
}
