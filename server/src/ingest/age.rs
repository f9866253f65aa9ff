//! Refuses what would take its place beneath something that is compacted away: it could not be folded in any more.
//!
//! Place in the journey: under the heads' locks, which compaction takes too, before the gate.
//!
//! # Invariants
//! - Nothing is taken at or beneath the compacted position of an audience that it touches, or beneath the image of a row
//!   that it touches: what is left of these is final.
//! - A correction of an action that is gone is too old, wherever its own rows are.
//! - Nothing is taken beneath the clock whose ids are forgotten: whether it was done is not known any more.

use std::collections::BTreeMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Hlc, RecordBody, ReplayKey, RowKey};
use synchrotron_core::wire::Outcome;
use uuid::Uuid;

use super::known::Known;
use super::pass::Candidate;
use super::validate::Measured;
use crate::pg::{Positions, query};

/// By the place of an upload that is too old, the clock that it must be above.
#[derive(Debug)]
pub(super) struct Ages(BTreeMap<usize, Hlc>);

/// The least position at which uploads touch a thing.
type Least<T> = BTreeMap<(i64, T), ReplayKey>;

impl Ages {
    /// Compares what is new in these uploads with what is gone.
    pub(super) async fn read(
        conn: &mut PgConnection,
        candidates: &[Candidate<'_>],
        known: &Known,
    ) -> Result<Self, sqlx_core::Error> {
        let mut audiences: Least<&AudienceKey> = Least::new();
        let mut rows: Least<RowKey> = Least::new();
        let mut uploads: Least<()> = Least::new();
        let mut amended: Vec<(i64, Uuid)> = Vec::new();
        for (place, candidate) in (0..).zip(candidates) {
            let new = |record: &&Measured<'_>| !known.contains(record.upload.id);
            for Measured { upload, position, .. } in candidate.open.records.iter().filter(new) {
                keep_least(&mut uploads, (place, ()), *position);
                for patch in &upload.rows {
                    keep_least(&mut audiences, (place, &patch.audience_key), *position);
                    keep_least(&mut rows, (place, patch.row_key()), *position);
                }
                if matches!(upload.body, RecordBody::Correction { .. }) {
                    amended.push((place, *position.action_id.as_uuid()));
                }
            }
        }
        let (in_audiences, on_rows) = (Positions::of(audiences.values()), Positions::of(rows.values()));
        let found = query(AGE)
            .bind(audiences.keys().map(|(place, _)| *place).collect::<Vec<_>>())
            .bind(audiences.keys().map(|(_, key)| key.as_str()).collect::<Vec<_>>())
            .bind(in_audiences.clocks)
            .bind(in_audiences.clients)
            .bind(in_audiences.actions)
            .bind(rows.keys().map(|(place, _)| *place).collect::<Vec<_>>())
            .bind(rows.keys().map(|(_, key)| key.table.as_str()).collect::<Vec<_>>())
            .bind(rows.keys().map(|(_, key)| key.row_id.as_str()).collect::<Vec<_>>())
            .bind(on_rows.clocks)
            .bind(on_rows.clients)
            .bind(on_rows.actions)
            .bind(amended.iter().map(|(place, _)| *place).collect::<Vec<_>>())
            .bind(amended.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .bind(uploads.keys().map(|(place, ())| *place).collect::<Vec<_>>())
            .bind(uploads.values().map(|least| least.clock.packed()).collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
        let floor = |row: &PgRow| {
            let place = usize::try_from(row.try_get::<i64, _>(0)?).expect("BUG: places count from 0");
            Ok((place, Hlc::from_packed(row.try_get(1)?)))
        };
        Ok(Self(found.iter().map(floor).collect::<Result<_, sqlx_core::Error>>()?))
    }

    /// Refuses an upload of which something is too old.
    pub(super) fn admit(&self, place: usize) -> Result<(), Outcome> {
        match self.0.get(&place) {
            Some(floor) => Err(Outcome::TooOld { oldest_ms: floor.millis() + 1 }),
            None => Ok(()),
        }
    }
}

fn keep_least<T: Ord>(least: &mut Least<T>, thing: (i64, T), position: ReplayKey) {
    let kept = least.entry(thing).or_insert(position);
    *kept = position.min(*kept);
}

/// By upload, the greatest clock that something of it is at or beneath and must be above; from its least position in each
/// audience and on each row, the actions that it amends, and its least clock.
pub(crate) const AGE: &str = "/* ingest.age */ SELECT floors.place, max(floors.clock) FROM ( \
    SELECT u.place, h.compacted_clock AS clock \
        FROM unnest($1::bigint[], $2::text[], $3::bigint[], $4::uuid[], $5::uuid[]) \
        AS u(place, audience_key, clock, client_id, action_id) \
        JOIN synchrotron.audience_heads h ON h.audience_key = u.audience_key \
        AND (u.clock, u.client_id, u.action_id) <= (h.compacted_clock, h.compacted_client_id, h.compacted_action_id) \
    UNION ALL SELECT u.place, i.position_clock \
        FROM unnest($6::bigint[], $7::text[], $8::text[], $9::bigint[], $10::uuid[], $11::uuid[]) \
        AS u(place, table_name, row_id, clock, client_id, action_id) \
        JOIN synchrotron.row_images i ON i.table_name = u.table_name AND i.row_id = u.row_id AND i.final \
        AND (u.clock, u.client_id, u.action_id) <= (i.position_clock, i.position_client_id, i.position_action_id) \
    UNION ALL SELECT u.place, c.position_clock FROM unnest($12::bigint[], $13::uuid[]) AS u(place, id) \
        JOIN synchrotron.compacted_records c ON c.id = u.id \
    UNION ALL SELECT u.place, m.forgotten_clock FROM unnest($14::bigint[], $15::bigint[]) AS u(place, clock) \
        JOIN synchrotron.server_meta m ON u.clock < m.forgotten_clock) AS floors \
    GROUP BY floors.place";
