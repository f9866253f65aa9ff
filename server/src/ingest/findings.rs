//! What the log says of a pass's uploads once the heads are locked: what of them is too old, what their devices have not
//! seen, and the newest position of each of their rows. One read.
//!
//! Place in the journey: under the heads' locks, which compaction takes too; [`age`](super::age) and
//! [`gate`](super::gate) judge by it, and [`materialize`](crate::materialize) tells late effects by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Hlc, ReplayKey, RowKey};

use super::age::Places;
use super::gate::Lagging;
use crate::pg::{Positions, position_of, query};

/// What the log says.
#[derive(Debug)]
pub(super) struct Findings {
    /// By the place of an upload that is too old, the clock that it must be above.
    pub(super) ages: BTreeMap<usize, Hlc>,
    /// By upload, the audiences in which the log has what its device lacks.
    pub(super) unseen: BTreeSet<(usize, AudienceKey)>,
    /// The newest position of each row that has effects in the log.
    pub(super) newest: HashMap<RowKey, ReplayKey>,
}

impl Findings {
    /// Reads all of it.
    pub(super) async fn read(
        conn: &mut PgConnection,
        places: &Places<'_>,
        lagging: &[Lagging<'_>],
    ) -> Result<Self, sqlx_core::Error> {
        let Places { audiences, rows, uploads, amended } = places;
        let (in_audiences, on_rows) = (Positions::of(audiences.values()), Positions::of(rows.values()));
        let found = query(FINDINGS)
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
            .bind(lagging.iter().map(|one| one.audience_key.as_str()).collect::<Vec<_>>())
            .bind(lagging.iter().map(|one| one.cursor.get()).collect::<Vec<_>>())
            .bind(lagging.iter().map(|one| *one.client_id.as_uuid()).collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
        let rows: Vec<&RowKey> = rows.keys().map(|(_, key)| key).collect();
        let mut findings = Self { ages: BTreeMap::new(), unseen: BTreeSet::new(), newest: HashMap::new() };
        for row in &found {
            findings.add(row, &rows, lagging)?;
        }
        Ok(findings)
    }

    fn add(&mut self, row: &PgRow, rows: &[&RowKey], lagging: &[Lagging<'_>]) -> Result<(), sqlx_core::Error> {
        let place = usize::try_from(row.try_get::<i64, _>("place")?).expect("BUG: places count from 0");
        match row.try_get("thing")? {
            "age" => drop(self.ages.insert(place, Hlc::from_packed(row.try_get("position_clock")?))),
            "unseen" => drop(self.unseen.insert((lagging[place].place, lagging[place].audience_key.clone()))),
            _ => drop(self.newest.insert(rows[place].clone(), position_of(row)?)),
        }
        Ok(())
    }
}

/// By upload, the greatest clock that something of it is at or beneath and must be above, from its least position in each
/// audience and on each row, the actions that it amends, and its least clock. Which of the lagging audiences have, or had,
/// a record of another device above the cursor. The newest position of each row.
pub(crate) const FINDINGS: &str = "/* ingest.findings */ \
    SELECT 'age' AS thing, floors.place, max(floors.clock) AS position_clock, NULL::uuid AS position_client_id, \
        NULL::uuid AS position_action_id FROM ( \
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
            JOIN synchrotron.server_meta m ON u.clock < m.forgotten_clock) AS floors GROUP BY floors.place \
    UNION ALL SELECT 'unseen', v.place - 1, NULL, NULL, NULL \
        FROM unnest($16::text[], $17::bigint[], $18::uuid[]) WITH ORDINALITY AS v(audience_key, cursor, client_id, place) \
        JOIN synchrotron.audience_heads h ON h.audience_key = v.audience_key \
        WHERE v.cursor < synchrotron.retained_for(h, v.client_id) OR EXISTS (SELECT FROM synchrotron.action_audiences a \
            WHERE a.audience_key = v.audience_key AND a.server_ingest_id > v.cursor AND a.client_id <> v.client_id) \
    UNION ALL SELECT 'newest', w.place - 1, n.* \
        FROM unnest($7::text[], $8::text[]) WITH ORDINALITY AS w(table_name, row_id, place) CROSS JOIN LATERAL \
        (SELECT m.position_clock, m.position_client_id, m.position_action_id \
        FROM synchrotron.action_modified_rows m WHERE m.table_name = w.table_name AND m.row_id = w.row_id \
        ORDER BY m.position_clock DESC, m.position_client_id DESC, m.position_action_id DESC LIMIT 1) n";
