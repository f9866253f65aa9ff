//! The truth, made the plainest way: sort everything, fold everything, every time.

use std::collections::BTreeMap;

use synchrotron_core::model::{AudienceRow, Columns, Effect, Patch, RecordBody, ReplayKey};
use synchrotron_core::network::memory::MemoryRow;
use synchrotron_core::wire::LogRecord;

use crate::rows::Rows;
use crate::run::LocalRecord;

/// Not uploaded: newer than all that is.
const UNSENT: i64 = i64::MAX;

/// What one position of the order does.
#[derive(Debug, Default)]
struct Place<'a> {
    shared: Vec<&'a Patch>,
    /// By row the newest amendment, with its number.
    amended: BTreeMap<AudienceRow, (i64, &'a Patch)>,
}

/// A history to be folded.
#[derive(Debug, Default)]
pub(crate) struct History<'a> {
    places: BTreeMap<ReplayKey, Place<'a>>,
}

impl<'a> History<'a> {
    /// Adds those rows of an accepted record that `has` says are had.
    pub(crate) fn add(&mut self, logged: &'a LogRecord, has: impl Fn(&Patch) -> bool) {
        let number = logged.record.server_ingest_id.map_or(0, |number| number.get());
        let rows = logged.rows.iter().filter(|row| has(row));
        let is_action = matches!(logged.record.body, RecordBody::Action { .. });
        self.add_rows(logged.record.position(), is_action, number, rows);
    }

    /// Adds a record that is not uploaded.
    pub(crate) fn add_unsent(&mut self, record: &'a LocalRecord) {
        self.add_rows(record.position, record.is_action, UNSENT, record.rows.iter());
    }

    fn add_rows(&mut self, position: ReplayKey, is_action: bool, number: i64, rows: impl Iterator<Item = &'a Patch>) {
        let place = self.places.entry(position).or_default();
        for row in rows {
            if is_action {
                place.shared.push(row);
                continue;
            }
            let newest = place.amended.entry(row.audience_row()).or_insert((number, row));
            if newest.0 <= number {
                *newest = (number, row);
            }
        }
    }

    /// The positions, first to last.
    pub(crate) fn positions(&self) -> Vec<ReplayKey> {
        self.places.keys().copied().collect()
    }

    /// The rows that everything comes to.
    pub(crate) fn rows(&self) -> Rows {
        self.rows_where(|_| true)
    }

    /// The rows that everything before a position comes to.
    pub(crate) fn rows_before(&self, end: ReplayKey) -> Rows {
        self.rows_where(|position| position < end)
    }

    fn rows_where(&self, wanted: impl Fn(ReplayKey) -> bool) -> Rows {
        let mut rows = BTreeMap::new();
        for (_, place) in self.places.iter().filter(|(position, _)| wanted(**position)) {
            for patch in place.effective() {
                fold(&mut rows, patch);
            }
        }
        let shown = |(AudienceRow { row, audience_key }, columns)| (row, MemoryRow { audience_key, columns });
        Rows(rows.into_iter().map(shown).collect())
    }

    /// What a position does in the end, amendments laid over it.
    pub(crate) fn effective(&self, position: ReplayKey) -> Vec<&'a Patch> {
        self.places.get(&position).map(Place::effective).unwrap_or_default()
    }
}

impl<'a> Place<'a> {
    fn effective(&self) -> Vec<&'a Patch> {
        let shared = self.shared.iter().copied().filter(|patch| !self.amended.contains_key(&patch.audience_row()));
        let amended = self.amended.values().map(|(_, patch)| *patch);
        shared.chain(amended).filter(|patch| patch.effect != Effect::Nothing).collect()
    }
}

fn fold(rows: &mut BTreeMap<AudienceRow, Columns>, patch: &Patch) {
    let key = patch.audience_row();
    match &patch.effect {
        Effect::Insert(columns) => {
            rows.insert(key, columns.clone());
        }
        Effect::Update(columns) => {
            if let Some(row) = rows.get_mut(&key) {
                set(row, columns);
            }
        }
        Effect::Delete => {
            rows.remove(&key);
        }
        Effect::Nothing => {}
    }
}

fn set(row: &mut Columns, columns: &Columns) {
    for (name, value) in columns {
        row.insert(name.clone(), value.clone());
    }
}

/// In a few words, where two sets of rows differ.
pub(crate) fn difference(found: &Rows, expected: &Rows) -> Option<String> {
    if found == expected {
        return None;
    }
    let keys = found.0.keys().chain(expected.0.keys());
    let key = keys.into_iter().find(|key| found.0.get(*key) != expected.0.get(*key))?;
    let show = |rows: &Rows| {
        rows.0.get(key).map_or("absent".to_owned(), |row| format!("{:?} in {}", row.columns, row.audience_key))
    };
    Some(format!("row {} of {} is {}, it should be {}", key.row_id, key.table, show(found), show(expected)))
}
