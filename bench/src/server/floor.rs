//! The floor of ingest: plain set-based inserts of the same log rows and app rows, without any question asked.

use futures::future::try_join_all;
use sqlx_postgres::{PgConnection, PgPool, Postgres};
use uuid::Uuid;

use super::stage::next_ms;
use crate::error::BenchError;

/// Its own tables, made like the server's, so that both write into tables of their own history.
pub(crate) const TABLES: &str = "
    CREATE TABLE plain_records (LIKE synchrotron.action_records INCLUDING ALL);
    CREATE TABLE plain_rows (LIKE synchrotron.action_modified_rows INCLUDING ALL);
    CREATE TABLE plain_audiences (LIKE synchrotron.action_audiences INCLUDING ALL);
    CREATE SEQUENCE plain_ids";

const RECORDS: &str = "WITH made AS (INSERT INTO plain_records (client_id, user_id, id, server_ingest_id, tag, args, clock, row_count, \
    position_clock, position_client_id, position_action_id, slices, content_hash, byte_count) \
    SELECT $1, $2, r.id, nextval('plain_ids'), 'add_item_v1', $3, r.clock, 1, r.clock, $1, r.id, $4, $5, 300 \
    FROM unnest($6::uuid[], $7::bigint[]) AS r(id, clock) RETURNING id, server_ingest_id, client_id) \
    INSERT INTO plain_audiences (audience_key, server_ingest_id, action_id, client_id) \
    SELECT 'user:' || $2, server_ingest_id, id, client_id FROM made";
const ROWS: &str = "INSERT INTO plain_rows (action_id, sequence, table_name, row_id, audience_key, operation, columns, \
    server_ingest_id, position_clock, position_client_id, position_action_id) \
    SELECT r.id, 0, 'items', r.id::text, $1, 'INSERT', $2, 1, r.clock, $3, r.id \
    FROM unnest($4::uuid[], $5::bigint[]) AS r(id, clock)";
const ITEMS: &str = "INSERT INTO plain_items (id, title, count, audience_key) \
    SELECT r.id::text, r.title, 1, $1 FROM unnest($2::uuid[], $3::text[]) AS r(id, title)";

/// One transaction: so many actions, each with a record, its audience, a row effect and an app row.
async fn transaction(conn: &mut PgConnection, user: &str, actions: u32) -> Result<(), BenchError> {
    use sqlx_core::connection::Connection;
    let query = sqlx_core::query::query::<Postgres>;
    let client = Uuid::nil();
    let ids: Vec<Uuid> = (0..actions).map(|_| Uuid::now_v7()).collect();
    let clocks: Vec<i64> = ids.iter().map(|_| next_ms() << 16).collect();
    let titles: Vec<String> = ids.iter().map(|id| format!("item {id}")).collect();
    let mut tx = conn.begin().await?;
    query(RECORDS)
        .bind(client)
        .bind(user)
        .bind([0x81_u8; 48].as_slice())
        .bind([0x91_u8; 18].as_slice())
        .bind([7_u8; 32].as_slice())
        .bind(&ids)
        .bind(&clocks)
        .execute(&mut *tx)
        .await?;
    query(ROWS)
        .bind(format!("user:{user}"))
        .bind([0x82_u8; 64].as_slice())
        .bind(client)
        .bind(&ids)
        .bind(&clocks)
        .execute(&mut *tx)
        .await?;
    query(ITEMS).bind(format!("user:{user}")).bind(&ids).bind(&titles).execute(&mut *tx).await?;
    Ok(tx.commit().await?)
}

/// Connections that each make so many transactions of so many actions.
pub(crate) async fn insert(pool: &PgPool, connections: u32, transactions: u32, actions: u32) -> Result<(), BenchError> {
    let writers = (0..connections).map(|number| async move {
        let mut conn = pool.acquire().await?;
        for _transaction in 0..transactions {
            transaction(&mut conn, &format!("plain{number}"), actions).await?;
        }
        Ok::<_, BenchError>(())
    });
    try_join_all(writers).await.map(drop)
}
