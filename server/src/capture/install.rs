//! Puts the triggers on tracked tables, and takes them off tables that are tracked no more.
//!
//! Place in the journey: at start, after the catalogue was read. The statements are in the migration; what is right
//! already is left alone, so a restart locks nothing.

use sqlx_core::connection::Connection;
use sqlx_postgres::PgPool;

use crate::StartError;
use crate::materialize::Catalogue;
use crate::pg::{lock_start, query};

/// Makes the triggers be on exactly the tracked tables, or on none.
pub(crate) async fn install(pool: &PgPool, catalogue: &Catalogue, enabled: bool) -> Result<(), StartError> {
    let doing = "install the triggers on tracked tables";
    let mut conn = pool.acquire().await.map_err(StartError::doing(doing))?;
    let mut tx = conn.begin().await.map_err(StartError::doing(doing))?;
    lock_start(&mut tx).await.map_err(StartError::doing(doing))?;
    let tracked: Vec<_> = catalogue.tables().filter(|_| enabled).collect();
    for (name, table) in &tracked {
        query("/* capture.install */ SELECT synchrotron.install_capture($1::text::regclass, $2)")
            .bind(&table.quoted)
            .bind(name.as_str())
            .execute(&mut *tx)
            .await
            .map_err(|source| StartError::Capture { table: (*name).clone(), source })?;
    }
    query("/* capture.remove */ SELECT synchrotron.remove_capture($1::text[]::regclass[], $2)")
        .bind(tracked.iter().map(|(_, table)| table.quoted.as_str()).collect::<Vec<_>>())
        .bind(tracked.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await
        .map_err(StartError::doing(doing))?;
    tx.commit().await.map_err(StartError::doing(doing))
}
