//! Opens the pool and refuses to serve from a database where the policies would not hold.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgPoolOptions};

use super::migrate::{migrate, verify};
use super::query;
use crate::StartError;
use crate::settings::Settings;

/// Serializes what several starting servers would do to the catalogue at once; any constant of ours.
const START_LOCK: i64 = 0x5359_4e43_4852_4f00;

/// The oldest Postgres that is tested.
const VERSION_MIN: i32 = 15;

/// A device that hears of trouble soon can go on to another carrier.
const ACQUIRE_WITHIN: Duration = Duration::from_secs(5);

/// A connection that served a moment ago is there still; asking it would be one more way there and back for each request.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// Snapshots come in bursts.
const IDLE_CONNECTIONS_FOR: Duration = Duration::from_secs(30);

/// What every connection that ingests begins with.
///
/// - Whoever holds an audience's head and stands still must not hold up its writers for ever.
/// - Texts that stand for values mean the same in every database: they are read, and written, in the forms of
///   [`crate::materialize::FORMS`].
/// - Plans are made once for each statement and never depend on statistics: those of a log that grows lag behind, and every
///   hot statement has its index. Without it, a statement that was first seen with empty tables reads all of them for ever,
///   by sequence or to join by hash, and planning takes longer than the rest. A plan against an index that is not there
///   looks dear enough to compile.
const SESSION: &str = "/* start.session */ SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '60s'; \
    SET TimeZone = 'UTC'; SET DateStyle = 'ISO, YMD'; SET IntervalStyle = 'postgres'; SET extra_float_digits = 1; \
    SET lc_monetary = 'C'; SET plan_cache_mode = 'force_generic_plan'; SET enable_seqscan = off; \
    SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";

/// A pool on a database whose schema is up to date and whose roles and view are as they must be.
pub(crate) async fn connect(settings: &Settings) -> Result<PgPool, StartError> {
    let pool = PgPoolOptions::new()
        .max_connections(settings.pool_connections_max)
        .acquire_timeout(ACQUIRE_WITHIN)
        .after_connect(|conn, _| Box::pin(async move { conn.execute(SESSION).await.map(drop) }))
        .test_before_acquire(false)
        .before_acquire(|conn, of| {
            Box::pin(async move {
                if of.idle_for > TRUSTED_FOR {
                    conn.ping().await?;
                }
                Ok(true)
            })
        })
        .connect(settings.database_url.as_str())
        .await
        .map_err(StartError::doing("connect"))?;
    let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
    refuse(version_fault(&mut conn).await?)?;
    if settings.migrate {
        drop(conn);
        for version in migrate(&pool).await? {
            tracing::info!(number = version.number, name = version.name, "migrated the schema synchrotron");
        }
        conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
    } else {
        verify(&mut conn).await?;
    }
    refuse(role_fault(&mut conn, &settings.app_role).await?)?;
    admit(&mut conn, &settings.app_role).await.map_err(StartError::doing("admit the role that users act as"))?;
    refuse(view_faults(&mut conn).await?.into_iter().next())?;
    drop(conn);
    Ok(pool)
}

/// One connection, for a command that looks and goes.
pub(crate) async fn connect_once(settings: &Settings) -> Result<PgConnection, StartError> {
    let mut conn = PgConnection::connect(settings.database_url.as_str()).await.map_err(StartError::doing("connect"))?;
    conn.execute(SESSION).await.map_err(StartError::doing("connect"))?;
    Ok(conn)
}

fn refuse(fault: Option<StartError>) -> Result<(), StartError> {
    fault.map_or(Ok(()), Err)
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

/// A Postgres that is too old.
pub(crate) async fn version_fault(conn: &mut PgConnection) -> Result<Option<StartError>, StartError> {
    let row = query("/* start.version */ SELECT current_setting('server_version_num')::int / 10000")
        .fetch_one(conn)
        .await
        .map_err(StartError::doing("tell its version"))?;
    let actual = row.get(0);
    Ok((actual < VERSION_MIN).then_some(StartError::PostgresTooOld { actual, min: VERSION_MIN }))
}

/// What makes the role unfit to act as users: it is not there, is above policies, or cannot be taken on.
pub(crate) async fn role_fault(conn: &mut PgConnection, role: &str) -> Result<Option<StartError>, StartError> {
    let found = query(
        "/* start.role */ SELECT r.rolsuper OR r.rolbypassrls, \
         pg_has_role(r.oid, 'MEMBER') OR me.rolsuper OR me.rolcreaterole, me.rolname::text \
         FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_roles me ON me.rolname = current_user WHERE r.rolname = $1",
    )
    .bind(role)
    .fetch_optional(conn)
    .await
    .map_err(StartError::doing("look for the role that users act as"))?;
    let role = role.to_owned();
    Ok(match found {
        None => Some(StartError::NoAppRole { role }),
        Some(row) if row.get(0) => Some(StartError::AppRoleUnbound { role }),
        Some(row) if !row.get::<bool, _>(1) => Some(StartError::AppRoleNotOurs { role, server_role: row.get(2) }),
        Some(_) => None,
    })
}

/// Lets the role act for users, and the server act as it.
pub(crate) async fn admit(conn: &mut PgConnection, role: &str) -> Result<(), sqlx_core::Error> {
    let mut tx = conn.begin().await?;
    lock_start(&mut tx).await?;
    query("/* start.admit */ SELECT synchrotron.admit_role($1)").bind(role).execute(&mut *tx).await?;
    tx.commit().await
}

/// Waits until no other starting server changes the catalogue, and holds others up until the transaction ends.
pub(crate) async fn lock_start(conn: &mut PgConnection) -> Result<(), sqlx_core::Error> {
    query("/* start.lock */ SELECT pg_advisory_xact_lock($1)").bind(START_LOCK).execute(conn).await.map(drop)
}

/// What is wrong with the app's view `synchrotron.user_audiences`.
pub(crate) async fn view_faults(conn: &mut PgConnection) -> Result<Vec<StartError>, StartError> {
    let columns = query(
        "/* start.view */ SELECT attname::text, atttypid IN ('text'::regtype, 'varchar'::regtype), \
         has_table_privilege(attrelid, 'SELECT'), current_user::text \
         FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('synchrotron.user_audiences') AND attnum > 0",
    )
    .fetch_all(conn)
    .await
    .map_err(StartError::doing("look for the view synchrotron.user_audiences"))?;
    if columns.is_empty() {
        return Ok(vec![StartError::NoUserAudiences]);
    }
    if !columns[0].get::<bool, _>(2) {
        return Ok(vec![StartError::UserAudiencesDenied { server_role: columns[0].get(3) }]);
    }
    let is_text = |column: &&str| columns.iter().any(|row| row.get::<&str, _>(0) == *column && row.get(1));
    let missing = ["user_id", "audience_key"].into_iter().filter(|column| !is_text(column));
    Ok(missing.map(|column| StartError::UserAudiencesColumn { column }).collect())
}
