//! What an audience's head tells of compacted records.
//!
//! Invariant: floors only rise, under the head's lock, in the transaction that deletes.

use std::collections::BTreeMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::ReplayKey;
use uuid::Uuid;

use super::units::Doomed;
use crate::pg::{Positions, position_of, query};

/// The floors of one audience.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Floors {
    /// The greatest compacted number.
    retained: i64,
    /// The device that wrote it.
    writer: Option<Uuid>,
    /// The greatest compacted number of any other device.
    by_others: i64,
    /// The greatest compacted position.
    position: Option<ReplayKey>,
}

impl Floors {
    /// After this record, too, is gone. Records need not come in order of number.
    fn raise(&mut self, number: i64, writer: Uuid, position: ReplayKey) {
        if self.writer == Some(writer) {
            self.retained = self.retained.max(number);
        } else if number > self.retained {
            self.by_others = self.retained;
            self.retained = number;
            self.writer = Some(writer);
        } else {
            self.by_others = self.by_others.max(number);
        }
        self.position = self.position.max(Some(position));
    }

    fn read(row: &PgRow) -> Result<Self, sqlx_core::Error> {
        let position = match row.try_get::<Option<i64>, _>("position_clock")? {
            Some(_) => Some(position_of(row)?),
            None => None,
        };
        Ok(Self {
            retained: row.try_get("retained")?,
            writer: row.try_get("retained_client_id")?,
            by_others: row.try_get("retained_by_others")?,
            position,
        })
    }
}

/// Raises the floors of the records' audiences, whose heads are locked; returns how many audiences there are.
pub(super) async fn raise(conn: &mut PgConnection, doomed: &Doomed) -> Result<u64, sqlx_core::Error> {
    let keys: Vec<&str> = doomed.audiences().into_iter().collect();
    let rows = query(FLOORS).bind(&keys).fetch_all(&mut *conn).await?;
    let mut floors: BTreeMap<String, Floors> = BTreeMap::new();
    for row in &rows {
        floors.insert(row.try_get("audience_key")?, Floors::read(row)?);
    }
    for (audience_key, record) in doomed.places() {
        let of_audience = floors.entry(audience_key.to_owned()).or_default();
        of_audience.raise(record.number, record.client_id, record.position);
    }
    let positions: Vec<ReplayKey> = floors.values().filter_map(|floors| floors.position).collect();
    let positions = Positions::of(&positions);
    query(RAISE)
        .bind(floors.keys().cloned().collect::<Vec<_>>())
        .bind(floors.values().map(|floors| floors.retained).collect::<Vec<_>>())
        .bind(floors.values().map(|floors| floors.writer).collect::<Vec<_>>())
        .bind(floors.values().map(|floors| floors.by_others).collect::<Vec<_>>())
        .bind(positions.clocks)
        .bind(positions.clients)
        .bind(positions.actions)
        .execute(conn)
        .await?;
    Ok(floors.len() as u64)
}

/// The floors of some audiences.
pub(crate) const FLOORS: &str = "/* compaction.floors */ SELECT audience_key, retained, retained_client_id, \
    retained_by_others, compacted_clock AS position_clock, compacted_client_id AS position_client_id, \
    compacted_action_id AS position_action_id FROM synchrotron.audience_heads WHERE audience_key = ANY($1)";

/// Sets the floors of some audiences.
pub(crate) const RAISE: &str = "/* compaction.raise */ UPDATE synchrotron.audience_heads h SET retained = f.retained, \
    retained_client_id = f.writer, retained_by_others = f.by_others, compacted_clock = f.clock, \
    compacted_client_id = f.client_id, compacted_action_id = f.action_id \
    FROM unnest($1::text[], $2::bigint[], $3::uuid[], $4::bigint[], $5::bigint[], $6::uuid[], $7::uuid[]) \
    AS f(audience_key, retained, writer, by_others, clock, client_id, action_id) WHERE h.audience_key = f.audience_key";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use synchrotron_core::model::{ActionId, ClientId, Hlc};

    use super::*;

    proptest! {
        /// For every device, the floor is the greatest number that another device wrote.
        #[test]
        fn what_a_device_may_lack_is_exact(records in prop::collection::vec((1..100i64, 0..4u128), 0..20)) {
            let mut floors = Floors::default();
            for (number, writer) in &records {
                let position = ReplayKey {
                    clock: Hlc::from_packed(*number),
                    client_id: ClientId::from_uuid(Uuid::from_u128(*writer)),
                    action_id: ActionId::from_uuid(Uuid::nil()),
                };
                floors.raise(*number, Uuid::from_u128(*writer), position);
            }
            for device in 0..5u128 {
                let of_others = records.iter().filter(|(_, writer)| *writer != device).map(|(number, _)| *number);
                let own = floors.writer == Some(Uuid::from_u128(device));
                let floor = if own { floors.by_others } else { floors.retained };
                prop_assert_eq!(floor, of_others.max().unwrap_or(0));
            }
        }
    }
}
