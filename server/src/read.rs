//! What every read of a device begins with: one consistent view, the right device, the right history.
//!
//! Place in the journey: before `fetch`, `snapshot` and `digest`.

use sqlx_core::row::Row;
use sqlx_core::transaction::Transaction;
use sqlx_postgres::{PgConnection, PgPool, Postgres};
use synchrotron_core::model::{ClientId, Epoch, UserId};
use synchrotron_core::wire::{Fault, FaultCode};

use crate::ingest::{foreign_client, read_epoch};
use crate::pg::query;

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The request is at fault, or finds no room.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// The server is.
    #[error(transparent)]
    Database(#[from] sqlx_core::Error),
}

/// A transaction in which every statement sees the same commits.
pub(crate) async fn begin(pool: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx_core::Error> {
    pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
}

/// Refuses another user's device, and a device that is at another history; returns the server's.
pub(crate) async fn admit(
    conn: &mut PgConnection,
    user_id: &UserId,
    client_id: ClientId,
    epoch: Epoch,
) -> Result<Epoch, ReadError> {
    let owner = query("/* read.client */ SELECT user_id FROM synchrotron.clients WHERE client_id = $1")
        .bind(*client_id.as_uuid())
        .fetch_optional(&mut *conn)
        .await?;
    if owner.is_some_and(|row| row.get::<&str, _>(0) != user_id.as_str()) {
        return Err(foreign_client().into());
    }
    let current = read_epoch(conn).await?;
    if current != epoch {
        let fact = format!("the device is at epoch {epoch}, the server's is {current}");
        return Err(Fault::new(FaultCode::EpochChanged, fact).into());
    }
    Ok(current)
}
