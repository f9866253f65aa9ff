//! The app's own migrations: numbered steps, each run once.
//!
//! Place in the journey: when the file is opened, after the app's schema and before capture is installed, in the same
//! transaction: a step that fails leaves the file as it was. Which were run is kept in a table of ours, because
//! `PRAGMA user_version` is the app's to use. A file that a newer app migrated is left alone.

use rusqlite::{OptionalExtension, Transaction};

use crate::store::{SqlError, StoreError};

/// Runs the steps that this file has not seen.
pub(super) fn run(setup: &Transaction<'_>, steps: &[String]) -> Result<(), StoreError> {
    let found = newest(setup)?;
    let known = u32::try_from(steps.len()).expect("BUG: nobody writes so many");
    if found > known {
        return Err(StoreError::NewerApp { found, known });
    }
    for (number, step) in (1..).zip(steps).filter(|(number, _)| *number > found) {
        setup.execute_batch(step).map_err(|error| failed(number, error.into()))?;
        setup.execute_batch("CREATE TABLE IF NOT EXISTS client_app_migrations (number INTEGER PRIMARY KEY)")?;
        setup.execute("INSERT INTO client_app_migrations (number) VALUES (?)", [number])?;
    }
    Ok(())
}

/// The last step that was run on this file; 0 if none was.
fn newest(setup: &Transaction<'_>) -> Result<u32, StoreError> {
    let exists = setup
        .query_row("SELECT 1 FROM sqlite_schema WHERE name = 'client_app_migrations'", [], |_| Ok(()))
        .optional()?;
    match exists {
        Some(()) => Ok(setup.query_row("SELECT max(number) FROM client_app_migrations", [], |row| row.get(0))?),
        None => Ok(0),
    }
}

fn failed(number: u32, source: SqlError) -> StoreError {
    source.fault().unwrap_or(StoreError::Migration { number, source })
}
