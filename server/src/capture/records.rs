//! Effects of staged changes, as records: one for each transaction, or several if it is large.

use std::collections::{BTreeMap, HashMap};

use synchrotron_core::model::{ActionArgs, ActionId, ActionTag, Patch, RecordBody};
use synchrotron_core::wire::UploadRecord;
use uuid::Uuid;

use super::effects::missing_effects;
use super::present::Found;
use super::staged::{Place, Taken};

/// No device has code for it, and none can: uploads with such a tag are refused.
const TAG: &str = "_sql_write_v1";

/// An empty MessagePack map.
const NO_ARGS: [u8; 1] = [0x80];

/// The size at which a record ends, in bytes: a transaction of a million rows must not be a page of its own.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// The records of a batch, each after the ones before and after all that was found. Transactions come in the order of their
/// first changes, a transaction's rows in the order of staging: by when a row was first changed if it is there, by when it
/// was last if it is gone.
pub(super) fn records_of(taken: &Taken, found: &Found, now_ms: i64, record_bytes_max: usize) -> Vec<UploadRecord> {
    let mut begun: HashMap<&str, i64> = HashMap::new();
    let mut placed: Vec<(&Place, Vec<Patch>)> = Vec::new();
    for (key, staged) in &taken.rows {
        let present = &found.rows[key];
        let place = if present.row.is_some() { &staged.first } else { &staged.last };
        let patches = missing_effects(staged, present).into_iter().map(|(audience_key, effect)| Patch {
            sequence: 0,
            table: key.table.clone(),
            row_id: key.row_id.clone(),
            audience_key,
            effect,
        });
        let first = begun.entry(&place.transaction).or_insert(place.id);
        *first = place.id.min(*first);
        placed.push((place, patches.collect()));
    }
    placed.sort_by_key(|(place, _)| place.id);
    let mut transactions: BTreeMap<(i64, &str), Vec<Patch>> = BTreeMap::new();
    for (Place { transaction, .. }, patches) in placed {
        let first = begun[transaction.as_str()];
        transactions.entry((first, transaction)).or_default().extend(patches);
    }
    let mut clock = found.clock;
    let bounded = transactions.into_values().flat_map(|patches| cut(patches, record_bytes_max.min(RECORD_BYTES_MAX)));
    bounded
        .map(|rows| {
            clock = clock.tick(now_ms);
            let tag = ActionTag::new(TAG).expect("BUG: the tag is one");
            let args = ActionArgs::from_encoded(NO_ARGS.to_vec()).expect("BUG: an empty map is one");
            let body = RecordBody::Action { tag, args };
            UploadRecord { id: ActionId::from_uuid(Uuid::now_v7()), clock, trace_parent: None, body, rows }
        })
        .collect()
}

/// Cuts a transaction where a record would be larger than `bytes_max`; a record has at least one row, whatever its size.
fn cut(patches: Vec<Patch>, bytes_max: usize) -> Vec<Vec<Patch>> {
    let mut records: Vec<Vec<Patch>> = Vec::new();
    let mut bytes = 0;
    for mut patch in patches {
        let size = rmp_serde::to_vec_named(&patch).expect("BUG: every patch has a MessagePack form").len();
        bytes += size;
        if records.is_empty() || bytes > bytes_max {
            records.push(Vec::new());
            bytes = size;
        }
        let rows = records.last_mut().expect("BUG: there is one now");
        patch.sequence = u32::try_from(rows.len()).expect("BUG: a batch is bounded");
        rows.push(patch);
    }
    records
}

#[cfg(test)]
mod tests {
    use synchrotron_core::model::{AudienceKey, Columns, Effect, RowId, TableName, Value};

    use super::*;

    #[test]
    fn a_large_transaction_is_cut_and_a_large_row_is_alone() {
        let patch = |row: usize, bytes: usize| Patch {
            sequence: 0,
            table: TableName::new("t").expect("ok"),
            row_id: RowId::new(format!("{row}")).expect("ok"),
            audience_key: AudienceKey::new("p").expect("ok"),
            effect: Effect::Insert(Columns::from([("text".to_owned(), Value::Text("x".repeat(bytes)))])),
        };
        let sizes = [10, 400, 400, 5_000, 10, 10];
        let patches = sizes.into_iter().enumerate().map(|(row, bytes)| patch(row, bytes)).collect();
        let records = cut(patches, 1_000);
        assert_eq!(records.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1, 1, 2]);
        assert!(records.iter().all(|rows| (0..).zip(rows).all(|(place, row)| row.sequence == place)));
        assert!(cut(Vec::new(), 1).is_empty());
    }
}
