//! A client's rows, made the plainest way: sort everything, fold everything.

use std::collections::BTreeMap;

use super::NetworkFixture;
use super::device::Device;
use crate::model::{Columns, Patch, RecordBody, ReplayKey, RowKey, Value};
use crate::patch::{Amendment, effective_patch, fold};
use crate::wire::LogRecord;

/// The rows that these records come to.
pub(super) fn rows_of(records: &[LogRecord]) -> BTreeMap<RowKey, Columns> {
    let mut places: BTreeMap<ReplayKey, (Vec<Patch>, Vec<Amendment>)> = BTreeMap::new();
    for LogRecord { record, rows, .. } in records {
        let (shared, amendments) = places.entry(record.position()).or_default();
        match record.body {
            RecordBody::Action { .. } => shared.extend(rows.iter().cloned()),
            RecordBody::Correction { .. } => amendments.extend(
                rows.iter().cloned().map(|patch| Amendment { patch, server_ingest_id: record.server_ingest_id }),
            ),
        }
    }
    let mut folded = BTreeMap::new();
    for patch in places.values().flat_map(|(shared, amendments)| effective_patch(shared, amendments)) {
        let key = patch.row_key();
        if let Some(columns) = fold(folded.remove(&key), &patch.effect) {
            folded.insert(key, columns);
        }
    }
    folded
}

/// Server and device hold this row alike, and its column has this value.
pub(super) async fn assert_column(
    fixture: &impl NetworkFixture,
    device: &Device,
    row: &RowKey,
    column: &str,
    expected: Value,
) {
    let held = rows_of(&device.everything().await).remove(row);
    assert_eq!(fixture.server_row(row).await, held, "the server holds {row:?} as the log folds");
    assert_eq!(held.and_then(|mut columns| columns.remove(column)), Some(expected), "{column} of {row:?}");
}
