//! Whether a user's audiences are found by an index.
//!
//! The view is asked for on every request, by user_id. With sequential scans forbidden, the planner takes an index
//! wherever one can serve at all, so what it still scans has none; statistics do not matter, nor does an empty table.

use std::collections::BTreeSet;

use serde_json::Value;
use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;

use super::{Finding, Level};
use crate::pg::{query, unreadable};

/// Tables beneath the view that a lookup by user_id reads whole.
pub(super) async fn scans(conn: &mut PgConnection) -> Result<Vec<Finding>, sqlx_core::Error> {
    let mut tx = conn.begin().await?;
    query("/* check.no_scan */ SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)")
        .execute(&mut *tx)
        .await?;
    let row = query(
        "/* check.lookup */ EXPLAIN (FORMAT JSON) SELECT DISTINCT a.audience_key::text COLLATE \"C\" \
         FROM synchrotron.user_audiences a WHERE a.user_id = 'somebody'",
    )
    .persistent(false)
    .fetch_one(&mut *tx)
    .await?;
    let plan: Value = serde_json::from_str(row.try_get_unchecked(0)?).map_err(unreadable)?;
    let mut scanned = BTreeSet::new();
    collect(&mut tx, &plan, &mut scanned).await?;
    tx.rollback().await?;
    Ok(scanned.into_iter().map(finding).collect())
}

fn finding(relation: String) -> Finding {
    Finding {
        level: Level::Warning,
        kind: "user_audiences_scan",
        place: "view synchrotron.user_audiences".to_owned(),
        what: format!(
            "a lookup by user_id reads all of {relation}, on every request: no index begins with what it compares"
        ),
        remedy: Some(format!("CREATE INDEX ON {} (<the column of the user>);", crate::start::quoted(&relation))),
    }
}

/// Walks a plan: sequential scans, and index scans that are not bounded by the index's first column.
async fn collect(
    conn: &mut PgConnection,
    plan: &Value,
    scanned: &mut BTreeSet<String>,
) -> Result<(), sqlx_core::Error> {
    let mut open = vec![plan];
    // A bitmap's index is named by one node, its table by the one above.
    while let Some(node) = open.pop() {
        match node {
            Value::Array(nodes) => open.extend(nodes),
            Value::Object(fields) => {
                open.extend(fields.get("Plan").into_iter().chain(fields.get("Plans")));
                let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
                match (text("Node Type"), text("Index Name")) {
                    ("Seq Scan", _) => {
                        scanned.insert(text("Relation Name").to_owned());
                    }
                    (_, "") => {}
                    (_, index) => {
                        let (relation, first) = first_column(conn, index).await?;
                        if !text("Index Cond").contains(&format!("({first} ")) {
                            scanned.insert(relation);
                        }
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The table of an index, and what the index begins with, as plans write it.
async fn first_column(conn: &mut PgConnection, index: &str) -> Result<(String, String), sqlx_core::Error> {
    let row = query(
        "/* check.index */ SELECT t.relname::text, pg_get_indexdef(i.indexrelid, 1, true) \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         JOIN pg_catalog.pg_class t ON t.oid = i.indrelid WHERE c.relname = $1",
    )
    .bind(index)
    .fetch_one(conn)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}
