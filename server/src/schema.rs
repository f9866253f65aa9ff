//! The command that brings the schema `synchrotron` up to date and does nothing else.

use serde::Serialize;
use sqlx_core::pool::PoolOptions;
use sqlx_postgres::Postgres;

use crate::settings::Settings;
use crate::{StartError, pg};

pub use crate::pg::SchemaVersion;

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Migrated {
    /// What was missing, and is there now.
    pub applied: Vec<SchemaVersion>,
    /// The version that the schema has.
    pub version: i64,
}

/// Brings the schema up to date. Several may do so at once: one works, and the others wait.
///
/// # Errors
/// [`StartError`], if Postgres refuses or is too old, or if the schema is newer than this build or was changed.
pub async fn migrate(settings: &Settings) -> Result<Migrated, StartError> {
    settings.validate_database()?;
    let pool = PoolOptions::<Postgres>::new().max_connections(1).connect(settings.database_url.as_str()).await;
    let pool = pool.map_err(StartError::doing("connect"))?;
    let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
    if let Some(fault) = pg::version_fault(&mut conn).await? {
        return Err(fault);
    }
    drop(conn);
    let applied = pg::migrate(&pool).await?;
    pool.close().await;
    Ok(Migrated { applied, version: pg::SCHEMA_VERSION })
}
