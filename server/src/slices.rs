//! Slices as they are read from the log: those of a commit, and those of the past.
//!
//! Place in the journey: between the log and whoever publishes. The outbox names the slices of commits; republishing makes
//! slices of what the log holds, whoever committed it and however long ago.
//!
//! # Invariants
//! - A slice has all its records, or none: then its readers fetch. None is left of one that was compacted in part.
//! - Slices of the past form the same chain as those of commits: each `prev` is the audience's head before its first record.
//!   Their bounds are the same whenever they are made, whatever part of the past is asked for.

use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::types::PgInterval;
use sqlx_postgres::{PgConnection, PgPool, PgRow};
use synchrotron_core::model::{AudienceKey, Cursor, Epoch};
use synchrotron_core::wire::Slice;

use crate::pg::{log_record_of, log_rows, query, record_columns, row_columns, unreadable};

/// Slices of the past end at multiples of this number.
const CHUNK: i64 = 512;
/// A record that was committed late may be older than one beneath it, by no more than an upload may take.
const DISORDER_MAX: Duration = Duration::from_secs(60);

/// Which slice: the records of an audience after `prev` through `through`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bounds {
    audience: String,
    prev: i64,
    through: i64,
}

impl Bounds {
    /// From a row with these three columns.
    pub(crate) fn of(row: &PgRow) -> Result<Self, sqlx_core::Error> {
        Ok(Self {
            audience: row.try_get("audience_key")?,
            prev: row.try_get("prev")?,
            through: row.try_get("through")?,
        })
    }
}

/// Reads slices, in this order; in one statement, so that what is compacted meanwhile is there whole or is known to be cut.
pub(crate) async fn read(conn: &mut PgConnection, wanted: &[Bounds]) -> Result<Vec<Slice>, sqlx_core::Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(SLICES)
        .bind(wanted.iter().map(|one| one.audience.as_str()).collect::<Vec<_>>())
        .bind(wanted.iter().map(|one| one.prev).collect::<Vec<_>>())
        .bind(wanted.iter().map(|one| one.through).collect::<Vec<_>>())
        .fetch_all(conn)
        .await?;
    let mut slices: Vec<Slice> = Vec::with_capacity(wanted.len());
    for row in &rows {
        let place = usize::try_from(row.try_get::<i64, _>("place")?).expect("BUG: places count from 1");
        if place > slices.len() {
            let Bounds { audience, prev, through } = &wanted[place - 1];
            slices.push(Slice {
                epoch: Epoch::from_uuid(row.try_get("epoch")?),
                audience_key: AudienceKey::new(audience.as_str()).map_err(unreadable)?,
                prev: Cursor::new(*prev),
                through: Cursor::new(*through),
                records: Vec::new(),
            });
        }
        if row.try_get::<Option<i64>, _>("server_ingest_id")?.is_some() {
            slices[place - 1].records.push(log_record_of(row)?);
        }
    }
    Ok(slices)
}

/// What the log holds of a part of the past, read a chunk at a time.
#[derive(Debug)]
pub(crate) struct Past {
    pool: PgPool,
    /// The last number that was read.
    after: i64,
    /// The newest that was there when reading began; what comes later is in the outbox.
    through: i64,
}

impl Past {
    /// The newest part of the past that is as long as `newest`; all of it for `None`.
    pub(crate) async fn open(pool: &PgPool, newest: Option<Duration>) -> Result<Self, sqlx_core::Error> {
        let mut conn = pool.acquire().await?;
        let through: i64 = query(HEAD).fetch_one(&mut *conn).await?.try_get(0)?;
        let mut after = match newest {
            Some(_) => through,
            None => 0,
        };
        let microseconds = newest.map_or(0, |newest| (newest + DISORDER_MAX).as_micros());
        let age = PgInterval { months: 0, days: 0, microseconds: i64::try_from(microseconds).unwrap_or(i64::MAX) };
        while after > 0 {
            let row = query(BEFORE).bind(after).bind(age).fetch_one(&mut *conn).await?;
            let (first, is_older): (Option<i64>, Option<bool>) = (row.try_get(0)?, row.try_get(1)?);
            after = first.map_or(0, |first| first - 1);
            if is_older.unwrap_or(true) {
                break;
            }
        }
        Ok(Self { pool: pool.clone(), after: after / CHUNK * CHUNK, through })
    }

    /// The slices of the next numbers; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Slice>>, sqlx_core::Error> {
        if self.after >= self.through {
            return Ok(None);
        }
        let mut conn = self.pool.acquire().await?;
        let (after, through) = (self.after, (self.after + CHUNK).min(self.through));
        let rows = query(OF_THE_PAST).bind(after).bind(through).fetch_all(&mut *conn).await?;
        let wanted = rows.iter().map(Bounds::of).collect::<Result<Vec<_>, _>>()?;
        let slices = read(&mut conn, &wanted).await?;
        self.after = through;
        Ok(Some(slices))
    }
}

/// The records of slices, of each at least one row. One of which a record was compacted has none.
pub(crate) const SLICES: &str = concat!(
    "/* slices.read */ SELECT s.place, e.epoch, ",
    record_columns!(),
    ", ",
    row_columns!(),
    " FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS s(audience_key, prev, through, place) \
      CROSS JOIN synchrotron.server_meta e \
      LEFT JOIN synchrotron.audience_heads h ON h.audience_key = s.audience_key \
      LEFT JOIN LATERAL (SELECT r.*, a.audience_key \
        FROM synchrotron.action_audiences a JOIN synchrotron.action_records r USING (server_ingest_id) \
        WHERE a.audience_key = s.audience_key AND a.server_ingest_id > s.prev AND a.server_ingest_id <= s.through \
        AND NOT coalesce(h.retained > s.prev, false)) r ON true \
      LEFT JOIN LATERAL ",
    log_rows!(),
    " ON true ORDER BY s.place, r.server_ingest_id"
);

/// The newest record.
pub(crate) const HEAD: &str =
    "/* slices.head */ SELECT coalesce(max(server_ingest_id), 0) FROM synchrotron.action_records";

/// Of some records before a number, the first, and whether one of them is older than an age.
pub(crate) const BEFORE: &str = "/* slices.before */ SELECT min(p.server_ingest_id), bool_or(p.created_at < now() - $2::interval) \
    FROM (SELECT server_ingest_id, created_at FROM synchrotron.action_records \
        WHERE server_ingest_id <= $1 ORDER BY server_ingest_id DESC LIMIT 1000) p";

/// Each audience with records between two numbers, its head before them, and the last of them.
pub(crate) const OF_THE_PAST: &str = "/* slices.past */ SELECT c.audience_key, c.last AS through, greatest( \
        coalesce((SELECT b.server_ingest_id FROM synchrotron.action_audiences b \
            WHERE b.audience_key = c.audience_key AND b.server_ingest_id <= $1 \
            ORDER BY b.server_ingest_id DESC LIMIT 1), 0), \
        coalesce((SELECT h.retained FROM synchrotron.audience_heads h \
            WHERE h.audience_key = c.audience_key AND h.retained < c.first), 0)) AS prev \
    FROM (SELECT audience_key, min(server_ingest_id) AS first, max(server_ingest_id) AS last \
        FROM synchrotron.action_audiences WHERE server_ingest_id > $1 AND server_ingest_id <= $2 \
        GROUP BY audience_key) c \
    ORDER BY c.last, c.audience_key";
