//! Random uploads against the model: rows equal the fold of effective patches by replay key.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use synchrotron_core::model::{Columns, Effect, Patch, RecordBody, ReplayKey, ServerIngestId, Value};
use synchrotron_core::patch::{Amendment, effective_patch, fold};
use synchrotron_core::wire::UploadRecord;

use crate::fixture::{Device, Theatre, columns, patch};

const ROWS: [&str; 3] = ["x", "y", "z"];

/// One effect, by numbers that mean something in any history.
#[derive(Debug, Clone)]
struct Step {
    row: usize,
    kind: u8,
    value: Option<i64>,
    both: bool,
}

/// One record: an action at a time, or a correction of the nth action before it.
#[derive(Debug, Clone)]
struct Turn {
    device: usize,
    at: i64,
    amends: Option<prop::sample::Index>,
    steps: Vec<Step>,
    /// Whether it goes in one batch with the next.
    held: bool,
}

fn arb_turns() -> impl Strategy<Value = Vec<Turn>> {
    let step = (0..ROWS.len(), 0..8u8, prop::option::of(0..5i64), any::<bool>())
        .prop_map(|(row, kind, value, both)| Step { row, kind, value, both });
    let turn = (
        0..2usize,
        0..40i64,
        prop::option::weighted(0.3, any::<prop::sample::Index>()),
        prop::collection::vec(step, 1..4),
        any::<bool>(),
    )
        .prop_map(|(device, at, amends, steps, held)| Turn { device, at, amends, steps, held });
    prop::collection::vec(turn, 1..14)
}

fn effect_of(step: &Step, correction: bool) -> Effect {
    let value: Value = step.value.map(|value| value.to_string()).into();
    let mut values = columns([("label", value.clone())]);
    if step.both {
        values.insert("holder".to_owned(), value);
    }
    match step.kind {
        0 | 1 => Effect::Insert(values),
        2 => Effect::Delete,
        3 if correction => Effect::Nothing,
        _ => Effect::Update(values),
    }
}

/// What was accepted, in order of arrival.
#[derive(Default)]
struct Model {
    records: Vec<(ReplayKey, UploadRecord)>,
}

impl Model {
    fn rows(&self) -> BTreeMap<String, Columns> {
        let mut shared: BTreeMap<ReplayKey, Vec<Patch>> = BTreeMap::new();
        let mut amendments: BTreeMap<ReplayKey, Vec<Amendment>> = BTreeMap::new();
        for (number, (position, record)) in (1..).zip(&self.records) {
            if matches!(record.body, RecordBody::Action { .. }) {
                shared.insert(*position, record.rows.clone());
            } else {
                let amendment = |patch: &Patch| Amendment {
                    patch: patch.clone(),
                    server_ingest_id: Some(ServerIngestId::new(number)),
                };
                amendments.entry(*position).or_default().extend(record.rows.iter().map(amendment));
            }
        }
        let mut rows: BTreeMap<String, Columns> = BTreeMap::new();
        for (position, patches) in &shared {
            let amended = amendments.get(position).map_or(&[][..], Vec::as_slice);
            for patch in effective_patch(patches, amended) {
                let row = patch.row_id.to_string();
                if let Some(after) = fold(rows.remove(&row), &patch.effect) {
                    rows.insert(row, after);
                }
            }
        }
        rows
    }
}

fn record_of(turn: &Turn, device: &Device, model: &Model) -> (ReplayKey, UploadRecord) {
    let actions: Vec<ReplayKey> = model
        .records
        .iter()
        .filter(|(_, record)| matches!(record.body, RecordBody::Action { .. }))
        .map(|(position, _)| *position)
        .collect();
    let amends = turn.amends.filter(|_| !actions.is_empty()).map(|index| *index.get(&actions));
    let mut rows: Vec<Patch> = Vec::new();
    for step in &turn.steps {
        let row = patch("seats", ROWS[step.row], "project:p", effect_of(step, amends.is_some()));
        if amends.is_none() || rows.iter().all(|known| known.row_id != row.row_id) {
            rows.push(row);
        }
    }
    match amends {
        Some(position) => (position, device.correction(position, rows)),
        None => {
            let record = device.action(turn.at, rows);
            (device.position(&record), record)
        }
    }
}

async fn run(theatre: &Theatre, turns: Vec<Turn>) -> Result<(), TestCaseError> {
    theatre
        .execute("TRUNCATE seats, synchrotron.action_records, synchrotron.action_modified_rows, \
                synchrotron.action_audiences, synchrotron.row_images CASCADE; UPDATE synchrotron.audience_heads SET head = 0")
        .await;
    let mut devices = [theatre.device("alice"), theatre.device("bob")];
    let mut model = Model::default();
    let mut held: [Vec<UploadRecord>; 2] = [vec![], vec![]];
    for turn in &turns {
        let device = &mut devices[turn.device];
        let (position, record) = record_of(turn, device, &model);
        // A held batch belongs to one device: whoever is next sends it first.
        if turn.held && held[1 - turn.device].is_empty() {
            held[turn.device].push(record.clone());
        } else {
            let other = 1 - turn.device;
            let waiting = std::mem::take(&mut held[other]);
            devices[other].sync(waiting).await;
            let mut batch = std::mem::take(&mut held[turn.device]);
            batch.push(record.clone());
            devices[turn.device].sync(batch).await;
        }
        model.records.push((position, record));
    }
    for (device, batch) in devices.iter_mut().zip(held) {
        device.sync(batch).await;
    }
    for row in ROWS {
        let expected = model.rows().get(row).map(|row| {
            let text = |column| match row.get(column) {
                Some(Value::Text(text)) => text.clone(),
                _ => "null".to_owned(),
            };
            format!("{} {}", text("label"), text("holder"))
        });
        let sql =
            format!("SELECT coalesce(label, 'null') || ' ' || coalesce(holder, 'null') FROM seats WHERE id = '{row}'");
        prop_assert_eq!(theatre.scalar(&sql).await, expected, "row {}", row);
    }
    Ok(())
}

#[test]
fn rows_are_the_fold_of_effective_patches() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let theatre = runtime.block_on(Theatre::open());
    let config = Config {
        cases: 60,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&arb_turns(), |turns| runtime.block_on(run(&theatre, turns)));
    assert!(result.is_ok(), "{}\nrun it again with SEED={seed}", result.expect_err("failed"));
}
