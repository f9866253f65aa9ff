//! What an operator decides, as plain data; [`Settings::validate`] says what does not fit together.
//!
//! Place in the journey: read once, at start. Where it comes from (arguments, environment) is `main`'s business.

mod compaction;
mod snapshots;
mod uploads;

use std::fmt;

use synchrotron_core::model::TableName;

pub use compaction::CompactionSettings;
pub use snapshots::SnapshotSettings;
pub use uploads::UploadSettings;

use crate::auth::TokenVerifier;

/// Everything that the server's core needs to be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where Postgres is. The role that it names owns the sync tables and sees past the tracked tables' policies.
    pub database_url: DatabaseUrl,
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
    pub pool_connections_max: u32,
    /// How uploads wait, and how they are taken together.
    pub uploads: UploadSettings,
    /// What snapshots and digests may cost.
    pub snapshots: SnapshotSettings,
    /// How long what is over is kept.
    pub compaction: CompactionSettings,
}

/// Of which audiences an uploading device must have seen all that other devices did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeadGate {
    /// Of every audience that its user sees: an action that reads one audience and writes another is safe.
    #[default]
    Visible,
    /// Of those that the upload writes to.
    Touched,
}

/// How tokens are verified.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// The secret shared with whoever signs tokens (HS256).
    pub secret: Vec<u8>,
    /// The only issuer that is believed, if set.
    pub issuer: Option<String>,
    /// The only audience that tokens may be made for, if set.
    pub audience: Option<String>,
    /// How far apart the clocks of issuer and server may be.
    pub leeway_seconds: u64,
}

impl fmt::Debug for JwtSettings {
    /// The secret stays one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSettings")
            .field("secret", &"…")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .field("leeway_seconds", &self.leeway_seconds)
            .finish()
    }
}

/// A connection URL; it may hold a password and so is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

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

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No table is tracked.
    #[error("no tracked table is named")]
    NoTables,
    /// A table is named twice.
    #[error("table {table} is named twice")]
    TableTwice {
        /// Which.
        table: TableName,
    },
    /// A bound is zero, or below one that it must hold.
    #[error("{setting} is {actual}, at least {min} is needed")]
    TooSmall {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        actual: u64,
        /// The least that works.
        min: u64,
    },
    /// The secret can be guessed.
    #[error("the token secret has {actual} bytes, at least {min} are needed")]
    SecretTooShort {
        /// Its length.
        actual: usize,
        /// The least that is safe with HS256.
        min: usize,
    },
    /// The role's name is empty or too long for Postgres.
    #[error("app_role is not a role name")]
    RoleName,
}

/// Shorter secrets can be guessed offline from one token.
const SECRET_BYTES_MIN: usize = 16;
/// Postgres cuts longer names.
const ROLE_BYTES_MAX: usize = 63;

impl Settings {
    /// Settings with every default, for these tables.
    #[must_use]
    pub fn new(database_url: impl Into<String>, tables: Vec<TableName>, jwt_secret: impl Into<Vec<u8>>) -> Self {
        Self {
            database_url: DatabaseUrl::new(database_url),
            tables,
            app_role: "synchrotron_user".to_owned(),
            jwt: JwtSettings { secret: jwt_secret.into(), issuer: None, audience: None, leeway_seconds: 30 },
            max_clock_ahead_ms: 60_000,
            max_upload_bytes: 8 << 20,
            max_record_bytes: 4 << 20,
            page_bytes_max: 512 << 10,
            head_gate: HeadGate::default(),
            pool_connections_max: 10,
            uploads: UploadSettings::default(),
            snapshots: SnapshotSettings::default(),
            compaction: CompactionSettings::default(),
        }
    }

    /// The verifier that these settings ask for.
    #[must_use]
    pub fn token_verifier(&self) -> TokenVerifier {
        let verifier = TokenVerifier::hs256(&self.jwt.secret).with_leeway_seconds(self.jwt.leeway_seconds);
        let verifier = match &self.jwt.issuer {
            Some(issuer) => verifier.with_issuer(issuer),
            None => verifier,
        };
        match &self.jwt.audience {
            Some(audience) => verifier.with_audience(audience),
            None => verifier,
        }
    }

    /// Checks what can be checked without a database.
    ///
    /// # Errors
    /// The first setting that cannot work.
    pub fn validate(&self) -> Result<(), SettingsError> {
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
        if self.jwt.secret.len() < SECRET_BYTES_MIN {
            return Err(SettingsError::SecretTooShort { actual: self.jwt.secret.len(), min: SECRET_BYTES_MIN });
        }
        let at_least = |setting, actual: u64, min: u64| {
            if actual < min { Err(SettingsError::TooSmall { setting, actual, min }) } else { Ok(()) }
        };
        at_least("max_clock_ahead_ms", u64::try_from(self.max_clock_ahead_ms).unwrap_or(0), 1)?;
        at_least("max_record_bytes", self.max_record_bytes as u64, 1)?;
        at_least("max_upload_bytes", self.max_upload_bytes as u64, self.max_record_bytes as u64)?;
        at_least("page_bytes_max", self.page_bytes_max as u64, 1)?;
        at_least("pool_connections_max", self.pool_connections_max.into(), 1)?;
        self.uploads.validate()?;
        self.snapshots.validate()?;
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
        let guessable = Settings { jwt: JwtSettings { secret: vec![1], ..settings().jwt }, ..settings() };
        assert!(matches!(guessable.validate(), Err(SettingsError::SecretTooShort { .. })));
    }
}
