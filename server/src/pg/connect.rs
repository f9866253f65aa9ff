//! Opens the pool and refuses to serve from a database where the policies would not hold.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgPoolOptions};

use super::migrate::migrate;
use super::query;
use crate::StartError;
use crate::settings::Settings;

/// Serializes what several starting servers would do to the catalogue at once; any constant of ours.
const START_LOCK: i64 = 0x5359_4e43_4852_4f00;

/// A device that hears of trouble soon can go on to another carrier.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// Snapshots come in bursts.
const IDLE_CONNECTIONS_FOR: Duration = Duration::from_secs(30);

/// Whoever holds an audience's head and stands still must not hold up its writers for ever. Texts that stand for values
/// mean the same in every database: they are read, and written, in the forms of [`crate::materialize::FORMS`].
const SESSION: &str = "/* start.session */ SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
    SET lc_monetary = 'C'";

/// A pool on a database whose schema is up to date and whose roles and view are as they must be.
pub(crate) async fn connect(settings: &Settings) -> Result<PgPool, StartError> {
    let pool = PgPoolOptions::new()
        .max_connections(settings.pool_connections_max)
        .acquire_timeout(ACQUIRE_WITHIN)
        .after_connect(|conn, _| Box::pin(async move { conn.execute(SESSION).await.map(drop) }))
        .connect(settings.database_url.as_str())
        .await
        .map_err(StartError::doing("connect"))?;
    migrate(&pool).await?;
    let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
    admit_role(&mut conn, &settings.app_role).await?;
    check_view(&mut conn).await?;
    Ok(pool)
}

/// A pool for reads that go on from request to request, which opens its connections as they are needed. Should this
/// process stand still, Postgres ends them by itself.
pub(crate) fn connect_later(settings: &Settings) -> Result<PgPool, StartError> {
    let bounds = &settings.snapshots;
    let idle_max_ms = bounds.idle_max.as_millis().saturating_mul(2).clamp(1_000, 3_600_000);
    let timeouts = format!("/* start.timeouts */ SET idle_in_transaction_session_timeout = {idle_max_ms}");
    PgPoolOptions::new()
        .max_connections(bounds.open_max.saturating_add(bounds.digests_max))
        .acquire_timeout(ACQUIRE_WITHIN)
        .idle_timeout(IDLE_CONNECTIONS_FOR)
        .after_connect(move |conn, _| {
            // Safe: a number in words of ours.
            let timeouts = AssertSqlSafe(timeouts.clone());
            Box::pin(async move { conn.execute(timeouts).await.map(drop) })
        })
        .connect_lazy(settings.database_url.as_str())
        .map_err(StartError::doing("connect"))
}

async fn admit_role(conn: &mut PgConnection, role: &str) -> Result<(), StartError> {
    let doing = "admit the role that users act as";
    let found = query("/* start.role */ SELECT rolsuper OR rolbypassrls FROM pg_catalog.pg_roles WHERE rolname = $1")
        .bind(role)
        .fetch_optional(&mut *conn)
        .await
        .map_err(StartError::doing(doing))?;
    match found {
        None => return Err(StartError::NoAppRole { role: role.to_owned() }),
        Some(row) if row.get::<bool, _>(0) => return Err(StartError::AppRoleUnbound { role: role.to_owned() }),
        Some(_) => {}
    }
    admit_locked(conn, role).await.map_err(StartError::doing(doing))
}

async fn admit_locked(conn: &mut PgConnection, role: &str) -> Result<(), sqlx_core::Error> {
    let mut tx = conn.begin().await?;
    query("/* start.lock */ SELECT pg_advisory_xact_lock($1)").bind(START_LOCK).execute(&mut *tx).await?;
    query("/* start.admit */ SELECT synchrotron.admit_role($1)").bind(role).execute(&mut *tx).await?;
    tx.commit().await
}

async fn check_view(conn: &mut PgConnection) -> Result<(), StartError> {
    let columns = query(
        "/* start.view */ SELECT attname::text, atttypid IN ('text'::regtype, 'varchar'::regtype) \
         FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('synchrotron.user_audiences') AND attnum > 0",
    )
    .fetch_all(conn)
    .await
    .map_err(StartError::doing("look for the view synchrotron.user_audiences"))?;
    if columns.is_empty() {
        return Err(StartError::NoUserAudiences);
    }
    for column in ["user_id", "audience_key"] {
        if !columns.iter().any(|row| row.get::<&str, _>(0) == column && row.get(1)) {
            return Err(StartError::UserAudiencesColumn { column });
        }
    }
    Ok(())
}
