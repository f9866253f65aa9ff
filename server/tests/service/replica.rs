//! What a device has that fetched everything: the fold of effective patches by replay key.

use std::collections::BTreeMap;

use synchrotron_core::model::{Columns, Patch, RecordBody, ReplayKey, RowKey};
use synchrotron_core::patch::{Amendment, effective_patch, fold};
use synchrotron_core::wire::LogRecord;

use crate::fixture::Theatre;
use crate::snapshot::by_key;

/// The rows that these records come to.
pub(crate) fn replica(records: &[LogRecord]) -> BTreeMap<RowKey, Columns> {
    let mut shared: BTreeMap<ReplayKey, &[Patch]> = BTreeMap::new();
    let mut amendments: BTreeMap<ReplayKey, Vec<Amendment>> = BTreeMap::new();
    for LogRecord { record, rows, .. } in records {
        if matches!(record.body, RecordBody::Action { .. }) {
            shared.insert(record.position(), rows);
        } else {
            let amendment =
                |patch: &Patch| Amendment { patch: patch.clone(), server_ingest_id: record.server_ingest_id };
            amendments.entry(record.position()).or_default().extend(rows.iter().map(amendment));
        }
    }
    let mut rows: BTreeMap<RowKey, Columns> = BTreeMap::new();
    for (position, patches) in shared {
        let amended = amendments.get(&position).map_or(&[][..], Vec::as_slice);
        for patch in effective_patch(patches, amended) {
            if let Some(after) = fold(rows.remove(&patch.row_key()), &patch.effect) {
                rows.insert(patch.row_key(), after);
            }
        }
    }
    rows
}

impl Theatre {
    /// Publishes every plain SQL write that is committed; how many row changes there were.
    pub(crate) async fn pick_up(&self) -> usize {
        let mut count = 0;
        loop {
            match self.service.pick_up_sql_writes().await.expect("picks up") {
                0 => return count,
                more => count += more,
            }
        }
    }

    /// That a device of each of these users that replays the log has what the tables have, and returns the last one's rows.
    pub(crate) async fn assert_in_step(&self, users: &[&str]) -> BTreeMap<RowKey, Columns> {
        let mut rows = BTreeMap::new();
        for user in users {
            let mut device = self.device(user);
            let audiences: Vec<String> =
                device.session().await.audiences.iter().map(|head| head.audience_key.to_string()).collect();
            let (_, canonical) = device.take(&audiences.iter().map(String::as_str).collect::<Vec<_>>()).await;
            rows = replica(&device.catch_up().await);
            assert_eq!(rows, by_key(&canonical), "{user}'s rows by the log, and in the tables");
        }
        rows
    }
}
