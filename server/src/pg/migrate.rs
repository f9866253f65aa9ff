//! The schema `synchrotron`, brought up to date under an advisory lock; a changed or unknown version is refused.
//!
//! Invariant: a migration that was released is never edited, only followed by another.

use sqlx_core::migrate::{Migration, MigrationType, Migrator};
use sqlx_core::sql_str::SqlStr;
use sqlx_postgres::PgPool;

use crate::StartError;

const MIGRATIONS: [(i64, &str, &str); 5] = [
    (1, "log", include_str!("../../migrations/0001_log.sql")),
    (2, "access", include_str!("../../migrations/0002_access.sql")),
    (3, "floors", include_str!("../../migrations/0003_floors.sql")),
    (4, "images", include_str!("../../migrations/0004_images.sql")),
    (5, "compaction", include_str!("../../migrations/0005_compaction.sql")),
];

/// Applies what is missing. The schema itself may be there already: the app's view lives in it.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), StartError> {
    let migrations = MIGRATIONS
        .into_iter()
        .map(|(version, name, sql)| {
            Migration::new(version, name.into(), MigrationType::Simple, SqlStr::from_static(sql), false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema("synchrotron");
    migrator.dangerous_set_table_name("synchrotron.schema_migrations");
    Ok(migrator.run(pool).await?)
}
