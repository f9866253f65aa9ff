//! The sync tables, made or brought up to date.
//!
//! Place in the journey: when the file is opened, before anything reads it. A file holds work that is nowhere else, so one
//! of an older version is never refused and never emptied; one of a newer version is left alone.

use rusqlite::{OptionalExtension, Transaction};

use super::{SqliteSettings, StoreError};

/// What [`SCHEMA`] is.
const SCHEMA_VERSION: i64 = 4;
const SCHEMA: &str = include_str!("schema.sql");
/// The oldest version that can be brought up to date.
const OLDEST: i64 = 3;
/// What leads from each version to the next, from the oldest on.
const STEPS: [&str; 1] = ["ALTER TABLE action_records ADD COLUMN trace_parent TEXT"];

/// Makes the sync tables, or brings them up to date.
pub(super) fn make_sync_tables(setup: &Transaction<'_>, settings: &SqliteSettings) -> Result<(), StoreError> {
    let exists = setup
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'client_sync_status'", [], |_| Ok(()))
        .optional()?
        .is_some();
    if exists {
        bring_up_to_date(setup)?;
    } else {
        setup.execute_batch(SCHEMA)?;
        setup.execute(
            "INSERT INTO client_sync_status (one, schema_version, client_id, user_id) VALUES (1, ?, ?, ?)",
            (SCHEMA_VERSION, settings.new_client_id.as_uuid().as_bytes(), settings.user_id.as_str()),
        )?;
    }
    // Whoever opens it after a sign-out owns it.
    setup.execute("UPDATE client_sync_status SET user_id = ? WHERE user_id IS NULL", [settings.user_id.as_str()])?;
    Ok(())
}

fn bring_up_to_date(setup: &Transaction<'_>) -> Result<(), StoreError> {
    let found: i64 = setup.query_row("SELECT schema_version FROM client_sync_status", [], |row| row.get(0))?;
    let steps = found.checked_sub(OLDEST).and_then(|done| STEPS.get(usize::try_from(done).ok()?..));
    let Some(steps) = steps else { return Err(StoreError::SchemaVersion { found, known: SCHEMA_VERSION }) };
    for step in steps {
        setup.execute_batch(step)?;
    }
    if !steps.is_empty() {
        setup.execute("UPDATE client_sync_status SET schema_version = ?", [SCHEMA_VERSION])?;
    }
    Ok(())
}
