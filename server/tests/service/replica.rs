//! What a device has that fetched everything: the fold of effective patches by replay key.

use std::collections::BTreeMap;

use synchrotron_core::model::{Columns, RowKey};
use synchrotron_core::wire::LogRecord;

use crate::fixture::Theatre;
use crate::oracle::{Seen, rows_of};
use crate::snapshot::by_key;

/// The rows that these records come to.
pub(crate) fn replica(records: &[LogRecord]) -> BTreeMap<RowKey, Columns> {
    rows_of(&Vec::from_iter(records.iter().map(Seen::from)))
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
