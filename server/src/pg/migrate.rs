//! The schema `synchrotron`, brought up to date under an advisory lock; a changed or unknown version is refused.
//!
//! Invariant: a migration that was released is never edited, only followed by another.

use serde::Serialize;
use sqlx_core::migrate::{MigrateError, Migration, MigrationType, Migrator};
use sqlx_core::row::Row;
use sqlx_core::sql_str::SqlStr;
use sqlx_postgres::{PgConnection, PgPool};

use super::query;
use crate::StartError;

const MIGRATIONS: [(i64, &str, &str); 13] = [
    (1, "log", include_str!("../../migrations/0001_log.sql")),
    (2, "access", include_str!("../../migrations/0002_access.sql")),
    (3, "floors", include_str!("../../migrations/0003_floors.sql")),
    (4, "images", include_str!("../../migrations/0004_images.sql")),
    (5, "compaction", include_str!("../../migrations/0005_compaction.sql")),
    (6, "sql_writes", include_str!("../../migrations/0006_sql_writes.sql")),
    (7, "trace", include_str!("../../migrations/0007_trace.sql")),
    (8, "lean_log", include_str!("../../migrations/0008_lean_log.sql")),
    (11, "leases", include_str!("../../migrations/0011_leases.sql")),
    (12, "scripts", include_str!("../../migrations/0012_scripts.sql")),
    (13, "openings", include_str!("../../migrations/0013_openings.sql")),
    (14, "new_rows", include_str!("../../migrations/0014_new_rows.sql")),
    (15, "fast_path", include_str!("../../migrations/0015_fast_path.sql")),
];

/// One step of the schema `synchrotron`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SchemaVersion {
    /// Its number; steps are applied in the order of their numbers.
    pub number: i64,
    /// What it brings.
    pub name: &'static str,
}

/// The version that this build needs.
pub(crate) const SCHEMA_VERSION: i64 = MIGRATIONS[MIGRATIONS.len() - 1].0;

/// Applies what is missing, and returns it. The schema itself may be there already: the app's view lives in it.
pub(crate) async fn migrate(pool: &PgPool) -> Result<Vec<SchemaVersion>, StartError> {
    let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
    let before = applied(&mut conn).await?;
    may_make_role(&mut conn).await?;
    let there = is_there(&mut conn).await?;
    drop(conn);
    let mut migrator = Migrator::with_migrations(migrations());
    if !there {
        // Even where it would do nothing, Postgres asks for the right to make schemas.
        migrator.create_schema("synchrotron");
    }
    migrator.dangerous_set_table_name("synchrotron.schema_migrations");
    migrator.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(version) => StartError::SchemaAhead { version, needed: SCHEMA_VERSION },
        other => StartError::Migrations(other),
    })?;
    let is_new = |(number, ..): &(i64, &str, &str)| before.iter().all(|(version, _)| version != number);
    let applied = MIGRATIONS.into_iter().filter(is_new);
    Ok(applied.map(|(number, name, _)| SchemaVersion { number, name }).collect())
}

/// The second migration makes the role that users act as, unless it is there: who may not do so should hear what to do.
async fn may_make_role(conn: &mut PgConnection) -> Result<(), StartError> {
    let role = "synchrotron_user";
    let row = query(
        "/* migrate.role */ SELECT to_regrole($1) IS NOT NULL OR rolsuper OR rolcreaterole, rolname::text \
         FROM pg_catalog.pg_roles WHERE rolname = current_user",
    )
    .bind(role)
    .fetch_one(conn)
    .await
    .map_err(StartError::doing("look for the role that users act as"))?;
    if row.get(0) { Ok(()) } else { Err(StartError::AppRoleNotMade { role, server_role: row.get(1) }) }
}

/// Whether the schema itself is there.
async fn is_there(conn: &mut PgConnection) -> Result<bool, StartError> {
    let row = query("/* migrate.schema */ SELECT to_regnamespace('synchrotron') IS NOT NULL").fetch_one(conn).await;
    Ok(row.map_err(StartError::doing("look for the schema synchrotron"))?.get(0))
}

/// Refuses a schema that is not the one that this build was made for.
pub(crate) async fn verify(conn: &mut PgConnection) -> Result<(), StartError> {
    let applied = applied(conn).await?;
    let known = migrations();
    for (version, checksum) in &applied {
        match known.iter().find(|migration| migration.version == *version) {
            None => return Err(StartError::SchemaAhead { version: *version, needed: SCHEMA_VERSION }),
            Some(migration) if *migration.checksum != **checksum => {
                return Err(MigrateError::VersionMismatch(*version).into());
            }
            Some(_) => {}
        }
    }
    let is_missing = |migration: &&Migration| applied.iter().all(|(version, _)| *version != migration.version);
    match known.iter().find(is_missing) {
        Some(_) => Err(StartError::SchemaBehind { version: applied.last().map(|last| last.0), needed: SCHEMA_VERSION }),
        None => Ok(()),
    }
}

/// The versions that the database has, in order, with their checksums.
pub(crate) async fn applied(conn: &mut PgConnection) -> Result<Vec<(i64, Vec<u8>)>, StartError> {
    let doing = "read the versions of the schema synchrotron";
    let there = query("/* migrate.there */ SELECT to_regclass('synchrotron.schema_migrations') IS NOT NULL")
        .fetch_one(&mut *conn)
        .await
        .map_err(StartError::doing(doing))?;
    if !there.get::<bool, _>(0) {
        return Ok(Vec::new());
    }
    let rows = query(
        "/* migrate.applied */ SELECT version, checksum FROM synchrotron.schema_migrations WHERE success ORDER BY version",
    )
    .fetch_all(conn)
    .await
    .map_err(StartError::doing(doing))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

fn migrations() -> Vec<Migration> {
    let migration = |(version, name, sql): (i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
    };
    MIGRATIONS.into_iter().map(migration).collect()
}
