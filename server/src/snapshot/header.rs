//! What a snapshot is of: audiences with their heads, floors and counts, and which of the device's records it holds.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, AudienceKey, ClientId, Cursor, Hlc, ReplayKey, ServerIngestId, UserId};
use synchrotron_core::wire::SnapshotAudience;
use uuid::Uuid;

use crate::materialize::{Catalogue, Table};
use crate::pg::{StoredFormError, query};

/// Those of the asked audiences that the user is in, in byte order, not counted yet; read as the server.
pub(super) async fn audiences(
    conn: &mut PgConnection,
    user_id: &UserId,
    asked: &[AudienceKey],
) -> Result<Vec<SnapshotAudience>, sqlx_core::Error> {
    let asked: BTreeSet<&str> = asked.iter().map(AudienceKey::as_str).collect();
    let rows = query(
        "/* snapshot.audiences */ SELECT a.audience_key, coalesce(h.head, 0), h.floor_clock, h.floor_client_id, \
         h.floor_action_id FROM synchrotron.audiences_of($1) AS a(audience_key) \
         LEFT JOIN synchrotron.audience_heads h ON h.audience_key = a.audience_key \
         WHERE a.audience_key = ANY($2) ORDER BY a.audience_key COLLATE \"C\"",
    )
    .bind(user_id.as_str())
    .bind(Vec::from_iter(asked))
    .fetch_all(conn)
    .await?;
    rows.iter().map(audience_of).collect()
}

fn audience_of(row: &PgRow) -> Result<SnapshotAudience, sqlx_core::Error> {
    let floor = match row.try_get::<Option<i64>, _>(2)? {
        Some(clock) => Some(ReplayKey {
            clock: Hlc::from_packed(clock),
            client_id: ClientId::from_uuid(row.try_get(3)?),
            action_id: ActionId::from_uuid(row.try_get(4)?),
        }),
        None => None,
    };
    Ok(SnapshotAudience {
        audience_key: AudienceKey::new(row.try_get::<String, _>(0)?).map_err(StoredFormError::from)?,
        cursor: Cursor::new(row.try_get(1)?),
        floor,
        rows: 0,
    })
}

/// Which of these records the log holds or held, of this user's own: what others did is nobody's business by its id.
pub(super) async fn known(
    conn: &mut PgConnection,
    user_id: &UserId,
    ids: &[ActionId],
) -> Result<BTreeMap<ActionId, ServerIngestId>, sqlx_core::Error> {
    if ids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rows = query(OWN)
        .bind(ids.iter().map(|id| *id.as_uuid()).collect::<Vec<Uuid>>())
        .bind(user_id.as_str())
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((ActionId::from_uuid(row.try_get(0)?), ServerIngestId::new(row.try_get(1)?)))).collect()
}

/// Counts the visible rows of each audience; read as the user.
pub(super) async fn count(
    conn: &mut PgConnection,
    catalogue: &Catalogue,
    audiences: &mut [SnapshotAudience],
) -> Result<(), sqlx_core::Error> {
    let keys: Vec<String> = audiences.iter().map(|audience| audience.audience_key.to_string()).collect();
    for (_, table) in catalogue.tables() {
        // Safe: built from catalogue identifiers only.
        let counted = sqlx_core::query::query(AssertSqlSafe(count_of(table))).bind(&keys).fetch_all(&mut *conn).await?;
        for row in counted {
            let (key, rows): (&str, i64) = (row.try_get(0)?, row.try_get(1)?);
            let place = audiences.binary_search_by(|audience| audience.audience_key.as_str().cmp(key));
            audiences[place.expect("BUG: only these audiences were asked for")].rows += rows.unsigned_abs();
        }
    }
    Ok(())
}

/// How many rows of a table are in each of some audiences, and visible.
pub(crate) fn count_of(table: &Table) -> String {
    format!(
        "/* snapshot.count */ SELECT \"audience_key\"::text, count(*) FROM {} \
         WHERE \"audience_key\" = ANY($1::text[]) GROUP BY 1",
        table.quoted
    )
}

/// A user's own records among some ids.
pub(crate) const OWN: &str = "/* snapshot.own */ SELECT id, server_ingest_id FROM synchrotron.action_records \
    WHERE id = ANY($1) AND user_id = $2 \
    UNION ALL SELECT id, server_ingest_id FROM synchrotron.compacted_records WHERE id = ANY($1) AND user_id = $2";
