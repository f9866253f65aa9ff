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
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, Hlc, RecordBody, ReplayKey, RowKey};
use synchrotron_core::wire::Outcome;
use uuid::Uuid;

use super::Decision;
use super::validate::Measured;
use crate::pg::{Positions, query};

/// Refuses an upload of which a record is too old.
pub(super) async fn check_age(conn: &mut PgConnection, records: &[&Measured<'_>]) -> Result<(), Decision> {
    let mut audiences: BTreeMap<&AudienceKey, ReplayKey> = BTreeMap::new();
    let mut rows: BTreeMap<RowKey, ReplayKey> = BTreeMap::new();
    for record in records {
        for patch in &record.upload.rows {
            for least in [
                audiences.entry(&patch.audience_key).or_insert(record.position),
                rows.entry(patch.row_key()).or_insert(record.position),
            ] {
                *least = record.position.min(*least);
            }
        }
    }
    let corrections = records.iter().filter(|record| matches!(record.upload.body, RecordBody::Correction { .. }));
    let amended: Vec<Uuid> = corrections.map(|record| *record.position.action_id.as_uuid()).collect();
    let (least_audiences, least_rows) = (Positions::of(audiences.values()), Positions::of(rows.values()));
    let oldest = records.iter().map(|record| record.position.clock.packed()).min();
    let found = query(AGE)
        .bind(audiences.keys().map(|key| key.as_str()).collect::<Vec<_>>())
        .bind(least_audiences.clocks)
        .bind(least_audiences.clients)
        .bind(least_audiences.actions)
        .bind(rows.keys().map(|key| key.table.as_str()).collect::<Vec<_>>())
        .bind(rows.keys().map(|key| key.row_id.as_str()).collect::<Vec<_>>())
        .bind(least_rows.clocks)
        .bind(least_rows.clients)
        .bind(least_rows.actions)
        .bind(amended)
        .bind(oldest)
        .fetch_one(conn)
        .await?;
    match found.try_get::<Option<i64>, _>(0)? {
        Some(floor) => Err(Outcome::TooOld { oldest_ms: Hlc::from_packed(floor).millis() + 1 }.into()),
        None => Ok(()),
    }
}

/// The greatest clock that something of an upload is at or beneath and must be above; from the least position in each of
/// its audiences and on each of its rows, the actions that it amends, and its least clock.
pub(crate) const AGE: &str = "/* ingest.age */ SELECT max(floors.clock) FROM ( \
    SELECT h.compacted_clock AS clock FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::uuid[]) \
        AS u(audience_key, clock, client_id, action_id) \
        JOIN synchrotron.audience_heads h ON h.audience_key = u.audience_key \
        AND (u.clock, u.client_id, u.action_id) <= (h.compacted_clock, h.compacted_client_id, h.compacted_action_id) \
    UNION ALL SELECT i.position_clock FROM unnest($5::text[], $6::text[], $7::bigint[], $8::uuid[], $9::uuid[]) \
        AS u(table_name, row_id, clock, client_id, action_id) \
        JOIN synchrotron.row_images i ON i.table_name = u.table_name AND i.row_id = u.row_id \
        AND (u.clock, u.client_id, u.action_id) <= (i.position_clock, i.position_client_id, i.position_action_id) \
    UNION ALL SELECT c.position_clock FROM synchrotron.compacted_records c WHERE c.id = ANY($10) \
    UNION ALL SELECT m.forgotten_clock FROM synchrotron.server_meta m WHERE $11 < m.forgotten_clock) AS floors";
