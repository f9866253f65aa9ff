//! Another history: the server says that what devices know of its log is void.
//!
//! Place in the journey: beside it, and only by command: after the database was restored from a backup, devices know of
//! records that the log does not have, and numbers would be given a second time. `docs/restore.md` is the runbook.
//!
//! Each device learns of it with its next request: it takes snapshots of its audiences, and uploads again what it wrote
//! and still has; the server answers for what it has as before, and takes the rest.

use serde::Serialize;
use sqlx_core::row::Row;
use synchrotron_core::model::Epoch;

use crate::StartError;
use crate::pg::query;
use crate::service::Service;

/// The history that ended, and the one that began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EpochChange {
    /// What devices were at.
    pub ended: Epoch,
    /// What they will be at.
    pub begun: Epoch,
}

/// Begins another history with what the database holds. Slices that were not published yet are dropped; numbers go on above
/// all that were given.
///
/// # Errors
/// [`StartError::Database`]: Postgres refused; nothing changed.
pub async fn begin_new(service: &Service) -> Result<EpochChange, StartError> {
    let begun = query("/* epoch.begin */ SELECT ended, begun FROM synchrotron.begin_epoch()").fetch_one(service.pool());
    let row = begun.await.map_err(StartError::doing("begin another history"))?;
    let change = EpochChange { ended: Epoch::from_uuid(row.get(0)), begun: Epoch::from_uuid(row.get(1)) };
    tracing::warn!(ended = %change.ended, begun = %change.begun, "another history begins: every device takes snapshots");
    Ok(change)
}
