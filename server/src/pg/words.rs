//! What Postgres says to an operator: its own words and its code.
//!
//! The driver would add a line number, which is one of Postgres's C source. Postgres's words may quote rows: they are for
//! logs and for who runs a command, never for devices.

use sqlx_core::error::DatabaseError;
use sqlx_core::migrate::MigrateError;

/// An error of Postgres, or of the way there.
pub(crate) fn words(error: &sqlx_core::Error) -> String {
    match error {
        sqlx_core::Error::Database(refused) => refusal_of(&**refused),
        other => other.to_string(),
    }
}

/// The same, of a migration.
pub(crate) fn migration_words(error: &MigrateError) -> String {
    match error {
        MigrateError::Execute(error) => words(error),
        MigrateError::ExecuteMigration(error, version) => format!("migration {version}: {}", words(error)),
        other => other.to_string(),
    }
}

/// Why Postgres refused a statement; the error itself if it did not, but could not be asked.
pub(crate) fn refusal(error: sqlx_core::Error) -> Result<String, sqlx_core::Error> {
    match &error {
        sqlx_core::Error::Database(refused) => Ok(refusal_of(&**refused)),
        _ => Err(error),
    }
}

/// Whether Postgres refused because a role lacks a right: no other try helps, somebody has to grant it.
pub(crate) fn is_denied(error: &sqlx_core::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| code == "42501")
}

fn refusal_of(refused: &dyn DatabaseError) -> String {
    let message = refused.message();
    match refused.code() {
        Some(code) => format!("{message} (SQLSTATE {code})"),
        None => message.to_owned(),
    }
}
