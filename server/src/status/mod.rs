//! How a deployment is, for whoever operates it.
//!
//! Place in the journey: beside it. The command `status` asks; a running server is not needed.
//!
//! Invariant: no answer costs more the longer the log is. Sizes are Postgres's own estimates; what is counted is counted
//! up to a bound.

mod log;

use serde::Serialize;
use sqlx_core::row::Row;

#[cfg(test)]
pub(crate) use log::{LAG, OLDEST, OUTBOX};
pub use log::{LogStatus, OutboxStatus};

use crate::api::nats::NatsStatus;
use crate::{ServerSettings, StartError, pg};

/// How a deployment is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Status {
    /// The version of this program.
    pub server_version: &'static str,
    /// Postgres's version.
    pub postgres_version: String,
    /// The version of the schema `synchrotron`; `None` before the first migration.
    pub schema_version: Option<i64>,
    /// The version that this program needs.
    pub schema_version_needed: i64,
    /// What the log holds, if the schema is the one that this program knows.
    pub log: Option<LogStatus>,
    /// How NATS is, if it is configured.
    pub nats: Option<NatsStatus>,
}

impl Status {
    /// Asks Postgres, and NATS if it is configured.
    ///
    /// # Errors
    /// [`StartError`] if Postgres cannot be asked. NATS that is away is part of the answer.
    pub async fn read(settings: &ServerSettings) -> Result<Self, StartError> {
        settings.core.validate_database()?;
        let mut conn = pg::connect_once(&settings.core).await?;
        let row = pg::query("/* status.version */ SELECT current_setting('server_version')")
            .fetch_one(&mut conn)
            .await
            .map_err(StartError::doing("tell its version"))?;
        let schema_version = pg::applied(&mut conn).await?.last().map(|(version, _)| *version);
        let log = if schema_version == Some(pg::SCHEMA_VERSION) {
            Some(log::read(&mut conn).await.map_err(StartError::doing("read the state of the log"))?)
        } else {
            None
        };
        let nats = match &settings.nats {
            Some(nats) => Some(NatsStatus::read(nats).await),
            None => None,
        };
        Ok(Self {
            server_version: env!("CARGO_PKG_VERSION"),
            postgres_version: row.get(0),
            schema_version,
            schema_version_needed: pg::SCHEMA_VERSION,
            log,
            nats,
        })
    }

    /// Whether everything that is configured is there and fits together.
    #[must_use]
    pub fn is_well(&self) -> bool {
        self.log.is_some() && self.nats.as_ref().is_none_or(NatsStatus::is_well)
    }
}
