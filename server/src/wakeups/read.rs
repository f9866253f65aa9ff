//! The three statements of a look.

use std::collections::BTreeMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Cursor, Cursors, Epoch, UserId};
use uuid::Uuid;

use super::settled::Probe;
use crate::audiences::named;
use crate::pg::{query, unreadable};

/// The history, the newest number, and the bounds of a snapshot. The snapshot is older than the number by a moment:
/// [`Settled`](super::settled::Settled) believes only one of a later look.
pub(crate) const PROBE: &str = "/* wakeups.probe */ SELECT m.epoch, CASE WHEN s.is_called THEN s.last_value ELSE 0 END, \
    pg_snapshot_xmin(pg_current_snapshot())::text::bigint, pg_snapshot_xmax(pg_current_snapshot())::text::bigint \
    FROM synchrotron.server_meta m CROSS JOIN synchrotron.server_ingest_ids s";

/// Those of some audiences whose heads have moved.
pub(crate) const MOVED: &str = "/* wakeups.moved */ SELECT h.audience_key, h.head \
    FROM unnest($1::text[], $2::bigint[]) AS w(audience_key, head) \
    JOIN synchrotron.audience_heads h ON h.audience_key = w.audience_key WHERE h.head > w.head";

/// The audiences of some users, with their heads.
pub(crate) const HEADS: &str = "/* wakeups.heads */ SELECT u.user_id, a.audience_key, coalesce(h.head, 0) \
    FROM unnest($1::text[]) AS u(user_id) CROSS JOIN LATERAL synchrotron.audiences_of(u.user_id) AS a(audience_key) \
    LEFT JOIN synchrotron.audience_heads h ON h.audience_key = a.audience_key WHERE a.audience_key IS NOT NULL";

pub(super) async fn probe(conn: &mut PgConnection) -> Result<(Epoch, Probe), sqlx_core::Error> {
    let row = query(PROBE).fetch_one(conn).await?;
    let probe = Probe { number: row.try_get(1)?, xmin: row.try_get(2)?, xmax: row.try_get(3)? };
    Ok((Epoch::from_uuid(row.try_get::<Uuid, _>(0)?), probe))
}

pub(super) async fn moved(conn: &mut PgConnection, known: &Cursors) -> Result<Cursors, sqlx_core::Error> {
    let rows = query(MOVED)
        .bind(known.keys().map(AudienceKey::as_str).collect::<Vec<_>>())
        .bind(known.values().map(|head| head.get()).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    let moved = |row: &PgRow| {
        let audience_key = AudienceKey::new(row.try_get::<String, _>(0)?).map_err(unreadable)?;
        Ok((audience_key, Cursor::new(row.try_get(1)?)))
    };
    rows.iter().map(moved).collect()
}

/// A user without audiences is left out.
pub(super) async fn heads(
    conn: &mut PgConnection,
    users: &[UserId],
) -> Result<BTreeMap<UserId, Cursors>, sqlx_core::Error> {
    let rows = query(HEADS).bind(users.iter().map(UserId::as_str).collect::<Vec<_>>()).fetch_all(conn).await?;
    let mut heads: BTreeMap<UserId, Cursors> = BTreeMap::new();
    for row in &rows {
        let user_id = UserId::new(row.try_get::<String, _>(0)?).map_err(unreadable)?;
        let Some(audience_key) = named(row.try_get(1)?) else { continue };
        heads.entry(user_id).or_default().insert(audience_key, Cursor::new(row.try_get(2)?));
    }
    Ok(heads)
}
