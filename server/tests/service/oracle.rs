//! What the rows should be: an independent fold of what was accepted, by replay key.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use synchrotron_core::model::{Columns, Effect, Patch, RecordBody, ReplayKey, RowKey, ServerIngestId, Value};
use synchrotron_core::patch::{Amendment, effective_patch, fold};
use synchrotron_core::wire::{LogRecord, UploadRecord};

use crate::fixture::{Theatre, columns, patch};

/// Seats of project p that random histories are about.
pub(crate) const ROWS: [&str; 3] = ["x", "y", "z"];

/// An accepted record: where it takes effect, when it arrived, and its rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) position: ReplayKey,
    pub(crate) number: ServerIngestId,
    pub(crate) correction: bool,
    pub(crate) rows: Vec<Patch>,
}

impl From<&LogRecord> for Seen {
    fn from(LogRecord { record, rows, .. }: &LogRecord) -> Self {
        Self {
            position: record.position(),
            number: record.server_ingest_id.expect("numbered"),
            correction: matches!(record.body, RecordBody::Correction { .. }),
            rows: rows.clone(),
        }
    }
}

/// The rows that these records make.
pub(crate) fn rows_of<'s>(log: impl IntoIterator<Item = &'s Seen>) -> BTreeMap<RowKey, Columns> {
    let mut shared: BTreeMap<ReplayKey, Vec<Patch>> = BTreeMap::new();
    let mut amendments: BTreeMap<ReplayKey, Vec<Amendment>> = BTreeMap::new();
    for seen in log {
        if seen.correction {
            let amendment = |patch: &Patch| Amendment { patch: patch.clone(), server_ingest_id: Some(seen.number) };
            amendments.entry(seen.position).or_default().extend(seen.rows.iter().map(amendment));
        } else {
            shared.insert(seen.position, seen.rows.clone());
        }
    }
    let mut rows: BTreeMap<RowKey, Columns> = BTreeMap::new();
    for position in shared.keys().chain(amendments.keys()).collect::<BTreeSet<_>>() {
        let own = shared.get(position).map_or(&[][..], Vec::as_slice);
        let amended = amendments.get(position).map_or(&[][..], Vec::as_slice);
        for patch in effective_patch(own, amended) {
            if let Some(after) = fold(rows.remove(&patch.row_key()), &patch.effect) {
                rows.insert(patch.row_key(), after);
            }
        }
    }
    rows
}

/// What was accepted, in order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Model(Vec<Seen>);

impl Model {
    /// One more.
    pub(crate) fn accept(&mut self, position: ReplayKey, record: &UploadRecord) {
        let number = ServerIngestId::new(i64::try_from(self.0.len()).expect("few") + 1);
        let correction = matches!(record.body, RecordBody::Correction { .. });
        self.0.push(Seen { position, number, correction, rows: record.rows.clone() });
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Where the actions are, but the first.
    pub(crate) fn actions(&self) -> Vec<ReplayKey> {
        self.0.iter().filter(|seen| !seen.correction).map(|seen| seen.position).skip(1).collect()
    }

    /// That the table has these rows.
    pub(crate) async fn check(&self, theatre: &Theatre) -> Result<(), TestCaseError> {
        let rows = rows_of(&self.0);
        for row in ROWS {
            let key = patch("seats", row, "project:p", Effect::Nothing).row_key();
            let expected = rows.get(&key).map(|row| {
                let text = |column| match row.get(column) {
                    Some(Value::Text(text)) => text.clone(),
                    _ => "null".to_owned(),
                };
                format!("{} {}", text("label"), text("holder"))
            });
            let sql = format!(
                "SELECT coalesce(label, 'null') || ' ' || coalesce(holder, 'null') FROM seats WHERE id = '{row}'"
            );
            prop_assert_eq!(theatre.scalar(&sql).await, expected, "row {}", row);
        }
        Ok(())
    }
}

/// Makes every row and removes it again. An effect on a row that never was is refused, whatever comes later.
pub(crate) fn once() -> Vec<Patch> {
    let effects = [|| Effect::Insert(columns([("label", "once".into()), ("holder", Value::Null)])), || Effect::Delete];
    effects.iter().flat_map(|effect| ROWS.map(|row| patch("seats", row, "project:p", effect()))).collect()
}

/// One effect, by numbers that mean something in any history.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    row: usize,
    kind: u8,
    value: Option<i64>,
    both: bool,
}

/// The effects of one record.
pub(crate) fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0..ROWS.len(), 0..8u8, prop::option::of(0..5i64), any::<bool>())
        .prop_map(|(row, kind, value, both)| Step { row, kind, value, both });
    prop::collection::vec(step, 1..4)
}

/// Their patches; a correction has one for each row. With `whole`, an INSERT says all columns, as one that takes the place
/// of a row of which nobody knows the history must.
pub(crate) fn patches_of(steps: &[Step], correction: bool, whole: bool) -> Vec<Patch> {
    let mut rows: Vec<Patch> = Vec::new();
    for step in steps {
        let row = patch("seats", ROWS[step.row], "project:p", effect_of(step, correction, whole));
        if !correction || rows.iter().all(|known| known.row_id != row.row_id) {
            rows.push(row);
        }
    }
    rows
}

fn effect_of(step: &Step, correction: bool, whole: bool) -> Effect {
    let value: Value = step.value.map(|value| value.to_string()).into();
    let values = |both: bool| {
        let mut values = columns([("label", value.clone())]);
        if both {
            values.insert("holder".to_owned(), value.clone());
        }
        values
    };
    match step.kind {
        0 | 1 => Effect::Insert(values(step.both || whole)),
        2 => Effect::Delete,
        3 if correction => Effect::Nothing,
        _ => Effect::Update(values(step.both)),
    }
}
