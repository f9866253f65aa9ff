//! Looks at both databases from outside: what RLS shows a user in Postgres, what is in that user's SQLite file.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx_core::executor::Executor;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::row::Row as _;
use sqlx_postgres::{PgPool, PgRow};
use synchrotron_core::client::{Client, ClientError};
use synchrotron_core::model::{ActionId, Value};

/// A row as both databases show it: table, then the columns as text.
pub type Seen = BTreeSet<Vec<Option<String>>>;

const SEATS: &str = "SELECT 'seats' AS tbl, id, label AS a, holder AS b, audience_key FROM seats";
const NOTES: &str = "SELECT 'notes' AS tbl, id, owner AS a, body AS b, audience_key FROM notes";

/// Every row of every tracked table that Row Level Security shows `user` in Postgres.
///
/// # Errors
/// If the database or file cannot be read.
pub async fn postgres_rows(pool: &PgPool, user: &str) -> Result<Seen, sqlx_core::Error> {
    let mut transaction = pool.begin().await?;
    transaction.execute("SET LOCAL ROLE synchrotron_user").await?;
    query("SELECT set_config('synchrotron.user_id', $1, true)").bind(user).execute(&mut *transaction).await?;
    let mut seen = Seen::new();
    for sql in [SEATS, NOTES] {
        let rows = query(sql).fetch_all(&mut *transaction).await?;
        seen.extend(rows.iter().map(|row: &PgRow| (0..5).map(|column| row.get(column)).collect::<Vec<_>>()));
    }
    Ok(seen)
}

/// Every row of every tracked table in a device's database.
///
/// # Errors
/// If the database or file cannot be read.
pub async fn device_rows(client: &Client) -> Result<Seen, ClientError> {
    let mut seen = Seen::new();
    for sql in [SEATS, NOTES] {
        for row in client.query(sql, &[]).await? {
            let columns = row.columns();
            let text = |column: &str| match columns.get(column) {
                Some(Value::Text(text)) => Some(text.clone()),
                _ => None,
            };
            seen.insert(["tbl", "id", "a", "b", "audience_key"].map(text).to_vec());
        }
    }
    Ok(seen)
}

/// Who holds a seat in Postgres, seen without Row Level Security.
///
/// # Errors
/// If the database or file cannot be read.
pub async fn holder(pool: &PgPool, label: &str) -> Result<Option<String>, sqlx_core::Error> {
    query_scalar("SELECT holder FROM seats WHERE label = $1").bind(label).fetch_one(pool).await
}

/// How many of these actions are in the server's log.
///
/// # Errors
/// If the database or file cannot be read.
pub async fn logged(pool: &PgPool, actions: &[ActionId]) -> Result<usize, sqlx_core::Error> {
    let ids: Vec<_> = actions.iter().map(|id| *id.as_uuid()).collect();
    let count: i64 = query_scalar("SELECT count(*) FROM synchrotron.action_records WHERE id = ANY ($1)")
        .bind(ids)
        .fetch_one(pool)
        .await?;
    Ok(usize::try_from(count).unwrap_or_default())
}

/// Whether a text is anywhere in a database file or its write-ahead log: in a table, in the log, in freed pages.
///
/// # Errors
/// If the database or file cannot be read.
pub fn file_holds(database: &Path, text: &str) -> std::io::Result<bool> {
    let mut found = false;
    for suffix in ["", "-wal"] {
        let mut file = database.as_os_str().to_owned();
        file.push(suffix);
        match std::fs::read(&file) {
            Ok(bytes) => found |= bytes.windows(text.len()).any(|window| window == text.as_bytes()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !suffix.is_empty() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
