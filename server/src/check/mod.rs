//! What is wrong with an app's schema, roles and policies, and with the streams in NATS, and how to mend it.
//!
//! Place in the journey: before it. The command `check` asks; nothing is changed by asking. What would keep a server from
//! starting comes from the same functions that a starting server asks.
//!
//! Tests: `tests/binary/check.rs`, one schema for each finding.

mod access;
mod finding;
mod streams;
mod table;
mod view;

use sqlx_postgres::PgConnection;

pub use finding::{Finding, Level};

use crate::StartError;
use crate::api::nats::NatsApiSettings;
use crate::materialize::inspect;
use crate::pg;
use crate::settings::Settings;

/// Looks at everything that the settings name: the server, the roles, the view and each table.
///
/// # Errors
/// [`StartError::Settings`], or [`StartError::Database`] if Postgres cannot be asked.
pub async fn check(settings: &Settings) -> Result<Vec<Finding>, StartError> {
    settings.validate_database()?;
    settings.validate_schema()?;
    let mut conn = pg::connect_once(settings).await?;
    let conn = &mut conn;
    let mut findings = Vec::new();
    findings.extend(pg::version_fault(conn).await?.map(Finding::from));
    match pg::verify(conn).await {
        Ok(()) => {}
        Err(behind @ StartError::SchemaBehind { .. }) if settings.migrate => {
            findings.push(Finding::from(behind).at_level(Level::Info));
        }
        Err(unreachable @ StartError::Database { .. }) => return Err(unreachable),
        Err(fault) => findings.push(fault.into()),
    }
    let role_fault = pg::role_fault(conn, &settings.app_role).await?;
    let has_role = !matches!(role_fault, Some(StartError::NoAppRole { .. }));
    findings.extend(role_fault.map(Finding::from));
    let view_faults = pg::view_faults(conn).await?;
    if view_faults.is_empty() {
        findings.extend(view::scans(conn).await.map_err(StartError::doing("explain a lookup by user_id"))?);
    }
    findings.extend(view_faults.into_iter().map(Finding::from));
    for name in &settings.tables {
        let inspected = inspect(conn, name, &settings.app_role).await?;
        findings.extend(inspected.faults.into_iter().map(Finding::from));
        let Some((oid, quoted)) = inspected.found else { continue };
        let place = table::Place { name, oid, quoted: &quoted, app_role: &settings.app_role };
        let found = look_closer(conn, &place, has_role).await;
        findings.extend(found.map_err(StartError::doing("read a table's catalogue"))?);
    }
    findings.sort_by_key(|finding| finding.level);
    Ok(findings)
}

/// Looks at what the settings name in NATS: the streams that are there, and nothing else.
pub async fn check_nats(settings: &NatsApiSettings) -> Vec<Finding> {
    streams::look(settings).await
}

async fn look_closer(
    conn: &mut PgConnection,
    place: &table::Place<'_>,
    has_role: bool,
) -> Result<Vec<Finding>, sqlx_core::Error> {
    let mut findings = table::look(conn, place).await?;
    if has_role {
        findings.extend(access::look(conn, place).await?);
    }
    Ok(findings)
}
