//! What is wrong with an app's schema, roles and policies, and with the streams in NATS, and how to mend it.
//!
//! Place in the journey: before it. The command `check` asks; nothing is changed by asking. What would keep a server from
//! starting comes from the same functions that a starting server asks.
//!
//! Tests: `tests/binary/check.rs`, one schema for each finding; `trial.rs`, as a user; `fresh.rs`, from nothing on.

mod access;
mod finding;
mod streams;
mod table;
mod trial;
mod view;

use sqlx_core::row::Row;
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
    let may_act = role_fault.is_none();
    findings.extend(role_fault.map(Finding::from));
    let founded = is_founded(conn).await.map_err(StartError::doing("look for its functions"))?;
    look_at_view(conn, founded, &mut findings).await?;
    let mut readable = Vec::new();
    for name in &settings.tables {
        let inspected = inspect(conn, name, &settings.app_role).await?;
        findings.extend(inspected.faults.into_iter().map(Finding::from));
        let Some((oid, quoted)) = inspected.found else { continue };
        let (app_role, captured) = (&*settings.app_role, settings.sql_writes.enabled);
        let place = table::Place { name, oid, quoted, app_role, founded, captured };
        let looking = look_closer(conn, &place, has_role, &mut findings).await;
        let may_read = looking.map_err(StartError::doing("read a table's catalogue"))?;
        readable.extend(inspected.table.filter(|_| may_read).map(|table| (place, table)));
    }
    if may_act {
        let tried = trial::tables(conn, &settings.app_role, founded, &readable).await;
        findings.extend(tried.map_err(StartError::doing("act as a user"))?);
    }
    Finding::sort(&mut findings);
    Ok(findings)
}

/// Looks at what the settings name in NATS: the streams that are there, and nothing else.
pub async fn check_nats(settings: &NatsApiSettings) -> Vec<Finding> {
    streams::look(settings).await
}

/// Whether the functions are there that policies may ask.
async fn is_founded(conn: &mut PgConnection) -> Result<bool, sqlx_core::Error> {
    let row = pg::query("/* check.founded */ SELECT to_regprocedure('synchrotron.my_audiences()') IS NOT NULL");
    row.fetch_one(conn).await?.try_get(0)
}

async fn look_at_view(conn: &mut PgConnection, founded: bool, findings: &mut Vec<Finding>) -> Result<(), StartError> {
    let faults = pg::view_faults(conn).await?;
    if faults.is_empty() {
        match trial::view(conn, founded).await.map_err(StartError::doing("read the view"))? {
            Some(denied) => findings.push(denied),
            None => {
                findings.extend(view::scans(conn).await.map_err(StartError::doing("explain a lookup by user_id"))?);
            }
        }
    }
    findings.extend(faults.into_iter().map(Finding::from));
    Ok(())
}

/// Whether users may read the table.
async fn look_closer(
    conn: &mut PgConnection,
    place: &table::Place<'_>,
    has_role: bool,
    findings: &mut Vec<Finding>,
) -> Result<bool, sqlx_core::Error> {
    findings.extend(table::look(conn, place).await?);
    if !has_role {
        return Ok(false);
    }
    let (found, readable) = access::look(conn, place).await?;
    findings.extend(found);
    Ok(readable)
}
