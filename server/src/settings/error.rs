//! Why settings cannot work; each names the setting, and most how to mend it.

use synchrotron_core::model::TableName;

use super::Algorithm;

/// Settings that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// No database is named.
    #[error("no database is named: set database_url, or DATABASE_URL")]
    NoDatabase,
    /// No table is tracked.
    #[error("no tracked table is named: set tables, or SYNCHROTRON_TABLES")]
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
    #[error(
        "the token secret has {actual} bytes, at least {min} are needed: set jwt.secret, or SYNCHROTRON_JWT_SECRET"
    )]
    SecretTooShort {
        /// Its length.
        actual: usize,
        /// The least that is safe with HS256.
        min: usize,
    },
    /// Nothing is there that a token could be verified with.
    #[error("tokens cannot be verified: neither a secret nor the URL of a key set is given")]
    NoTokenKeys,
    /// The key set cannot be there.
    #[error("the URL of the key set {fact}")]
    JwksUrl {
        /// What is wrong with it.
        fact: &'static str,
    },
    /// An algorithm is allowed for which there are no keys.
    #[error("{algorithm} is allowed, but {missing} is not given")]
    AlgorithmWithoutKeys {
        /// Which.
        algorithm: Algorithm,
        /// Where its keys would come from.
        missing: &'static str,
    },
    /// A way of verifying tokens is given that no algorithm uses.
    #[error("{given} is given, but no algorithm that uses it is allowed")]
    KeysWithoutAlgorithm {
        /// Which.
        given: &'static str,
    },
    /// The claim that names the user cannot be one.
    #[error("user_claim names no claim")]
    UserClaim,
    /// A bound is above one that is safe.
    #[error("{setting} is {actual}, at most {max} is safe")]
    TooLarge {
        /// Which setting.
        setting: &'static str,
        /// Its value.
        actual: u64,
        /// The most that is safe.
        max: u64,
    },
    /// Supabase's variables are there, and one of them is no URL.
    #[error("SUPABASE_URL is no http or https URL")]
    SupabaseUrl,
    /// A browser calls itself otherwise.
    #[error("http.cors_origins holds {origin:?}, which is no origin: a scheme and a host, such as https://app.example")]
    Origin {
        /// What is there.
        origin: String,
    },
    /// NATS is named, but not what its configuration was written with.
    #[error(
        "NATS needs a secret: set nats.secret, or SYNCHROTRON_NATS_SECRET, and write its configuration with nats-config"
    )]
    NoNatsSecret,
    /// The secret can be guessed from the public keys in NATS's configuration.
    #[error(
        "the secret of NATS has {actual} bytes, at least {min} are needed: set nats.secret, or SYNCHROTRON_NATS_SECRET"
    )]
    NatsSecretTooShort {
        /// Its length.
        actual: usize,
        /// The least that is safe.
        min: usize,
    },
    /// A certificate without its key, or the other way round.
    #[error("nats.tls_certificate and nats.tls_key belong together")]
    NatsCertificate,
    /// The role's name is empty or too long for Postgres.
    #[error("app_role is not a role name")]
    RoleName,
    /// No such gate.
    #[error("head_gate is \"visible\" or \"touched\"")]
    HeadGate,
}
