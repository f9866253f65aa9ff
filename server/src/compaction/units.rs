//! Which records may go: old ones, an action always together with the corrections that amend it.
//!
//! # Invariants
//! - A unit is an action and its corrections. It goes when the newest of them, by number, is old enough: what an action
//!   comes to do is either all in the log, or all folded into an image.
//! - Units go in order of their newest number. One that stays, because something young amends it, does not hold up those
//!   after it: who has a cursor above it has seen it, and its effects stay where they are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::ReplayKey;
use uuid::Uuid;

use crate::pg::{position_of, query};

/// What a look at the oldest records after a number found.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// The actions of units that may go.
    pub(super) actions: Vec<Uuid>,
    /// How many old records there were, those included that a newer one holds.
    pub(super) old: u64,
    /// Where to look next, if old records may follow.
    pub(super) next: Option<i64>,
}

/// Looks at the next records after a number, at most `limit`, up to the first one that is not old.
pub(super) async fn candidates(
    conn: &mut PgConnection,
    after: i64,
    retention: Duration,
    limit: u32,
) -> Result<Candidates, sqlx_core::Error> {
    let rows = query(OLDEST).bind(after).bind(retention.as_secs_f64()).bind(i64::from(limit)).fetch_all(conn).await?;
    let mut found = Candidates::default();
    for row in &rows {
        let (number, action, old, newest): (i64, Uuid, bool, bool) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        if !old {
            found.next = None;
            return Ok(found);
        }
        found.old += 1;
        if newest {
            found.actions.push(action);
        }
        found.next = Some(number);
    }
    if rows.len() < usize::try_from(limit).unwrap_or(usize::MAX) {
        found.next = None;
    }
    Ok(found)
}

/// One record that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: Uuid,
    pub(super) number: i64,
    pub(super) client_id: Uuid,
    pub(super) position: ReplayKey,
}

/// Whole units that are to go, and the audiences of each record.
#[derive(Debug, Default)]
pub(super) struct Doomed {
    records: BTreeMap<i64, Record>,
    places: Vec<(String, i64)>,
}

impl Doomed {
    /// Reads all records of these actions' units.
    pub(super) async fn read(conn: &mut PgConnection, actions: &[Uuid]) -> Result<Self, sqlx_core::Error> {
        let record = |row: &PgRow| {
            let record = Record {
                id: row.try_get("id")?,
                number: row.try_get("server_ingest_id")?,
                client_id: row.try_get("client_id")?,
                position: position_of(row)?,
            };
            Ok((record.number, record))
        };
        let found = query(UNITS).bind(actions).fetch_all(&mut *conn).await?;
        let records = found.iter().map(record).collect::<Result<BTreeMap<i64, Record>, sqlx_core::Error>>()?;
        let numbers: Vec<i64> = records.keys().copied().collect();
        let places = query(PLACES).bind(numbers).fetch_all(conn).await?;
        let places = places.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
        Ok(Self { places: places.collect::<Result<_, sqlx_core::Error>>()?, records })
    }

    /// Leaves out units that were amended since they were read; call it when the heads are locked.
    pub(super) async fn keep_amended(&mut self, conn: &mut PgConnection) -> Result<(), sqlx_core::Error> {
        let mut newest: BTreeMap<Uuid, i64> = BTreeMap::new();
        for record in self.records.values() {
            newest.insert(*record.position.action_id.as_uuid(), record.number);
        }
        let found = query(AMENDED)
            .bind(newest.keys().copied().collect::<Vec<_>>())
            .bind(newest.values().copied().collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
        let amended: BTreeSet<Uuid> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        self.records.retain(|_, record| !amended.contains(record.position.action_id.as_uuid()));
        self.places.retain(|(_, number)| self.records.contains_key(number));
        Ok(())
    }

    /// The records, by number.
    pub(super) fn records(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// All audiences, in byte order.
    pub(super) fn audiences(&self) -> BTreeSet<&str> {
        self.places.iter().map(|(audience_key, _)| audience_key.as_str()).collect()
    }

    /// Each record with each of its audiences.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.places.iter().map(|(audience_key, number)| (audience_key.as_str(), &self.records[number]))
    }
}

/// The next records by number: their action, whether they are old, and whether nothing newer amends the action.
pub(crate) const OLDEST: &str = "/* compaction.oldest */ SELECT r.server_ingest_id, r.position_action_id, \
    r.created_at < now() - $2::float8 * interval '1 second', \
    NOT EXISTS (SELECT FROM synchrotron.action_records n \
        WHERE n.amends = r.position_action_id AND n.server_ingest_id > r.server_ingest_id) \
    FROM synchrotron.action_records r WHERE r.server_ingest_id > $1 ORDER BY r.server_ingest_id LIMIT $3";

/// Actions with their corrections.
pub(crate) const UNITS: &str = "/* compaction.units */ SELECT r.* FROM unnest($1::uuid[]) AS u(action_id) \
    CROSS JOIN LATERAL ( \
        SELECT a.id, a.server_ingest_id, a.client_id, a.position_clock, a.position_client_id, a.position_action_id \
            FROM synchrotron.action_records a WHERE a.id = u.action_id \
        UNION ALL \
        SELECT c.id, c.server_ingest_id, c.client_id, c.position_clock, c.position_client_id, c.position_action_id \
            FROM synchrotron.action_records c WHERE c.amends = u.action_id) r";

/// The audiences of some records.
pub(crate) const PLACES: &str = "/* compaction.places */ SELECT audience_key, server_ingest_id \
    FROM synchrotron.action_audiences WHERE server_ingest_id = ANY($1)";

/// Which of these actions something newer amends.
pub(crate) const AMENDED: &str = "/* compaction.amended */ SELECT u.action_id \
    FROM unnest($1::uuid[], $2::bigint[]) AS u(action_id, newest) \
    WHERE EXISTS (SELECT FROM synchrotron.action_records n \
        WHERE n.amends = u.action_id AND n.server_ingest_id > u.newest)";
