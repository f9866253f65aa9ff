//! Random uploads with compaction in between, against the model: rows equal the fold of everything that was ever accepted.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use synchrotron_core::model::{Columns, Effect, Patch, RecordBody, ReplayKey, ServerIngestId, Value};
use synchrotron_core::patch::{Amendment, effective_patch, fold};
use synchrotron_core::wire::{Outcome, UploadRecord};

use crate::compaction::{age, compact, open};
use crate::fixture::{Device, Theatre, columns, patch};

const ROWS: [&str; 3] = ["x", "y", "z"];

/// One effect.
#[derive(Debug, Clone)]
struct Step {
    row: usize,
    kind: u8,
    value: Option<i64>,
    both: bool,
}

/// One record, an action about now or a correction of the nth action before it; or a compaction.
#[derive(Debug, Clone)]
enum Turn {
    Action { device: usize, late: i64, steps: Vec<Step> },
    Correction { device: usize, amends: prop::sample::Index, steps: Vec<Step> },
    Compaction { through: prop::sample::Index },
}

fn arb_turns() -> impl Strategy<Value = Vec<Turn>> {
    let step = (0..ROWS.len(), 0..8u8, prop::option::of(0..5i64), any::<bool>())
        .prop_map(|(row, kind, value, both)| Step { row, kind, value, both });
    let steps = prop::collection::vec(step, 1..4);
    let turn = prop_oneof![
        4 => (0..2usize, 0..30i64, steps.clone()).prop_map(|(device, late, steps)| Turn::Action { device, late, steps }),
        2 => (0..2usize, any::<prop::sample::Index>(), steps)
            .prop_map(|(device, amends, steps)| Turn::Correction { device, amends, steps }),
        2 => any::<prop::sample::Index>().prop_map(|through| Turn::Compaction { through }),
    ];
    prop::collection::vec(turn, 1..24)
}

/// An INSERT carries all columns.
fn effect_of(step: &Step, correction: bool) -> Effect {
    let value: Value = step.value.map(|value| value.to_string()).into();
    let both = || columns([("label", value.clone()), ("holder", value.clone())]);
    match step.kind {
        0 | 1 => Effect::Insert(both()),
        2 => Effect::Delete,
        3 if correction => Effect::Nothing,
        _ if step.both => Effect::Update(both()),
        _ => Effect::Update(columns([("label", value.clone())])),
    }
}

fn rows_of(steps: &[Step], correction: bool) -> Vec<Patch> {
    let mut rows: Vec<Patch> = Vec::new();
    for step in steps {
        let row = patch("seats", ROWS[step.row], "project:p", effect_of(step, correction));
        if !correction || rows.iter().all(|known| known.row_id != row.row_id) {
            rows.push(row);
        }
    }
    rows
}

/// What was accepted, in order of arrival.
#[derive(Default)]
struct Model {
    records: Vec<(ReplayKey, UploadRecord)>,
    /// Nothing is accepted at or beneath this.
    compacted: Option<ReplayKey>,
}

impl Model {
    fn rows(&self) -> BTreeMap<String, Columns> {
        let mut shared: BTreeMap<ReplayKey, Vec<Patch>> = BTreeMap::new();
        let mut amendments: BTreeMap<ReplayKey, Vec<Amendment>> = BTreeMap::new();
        for (number, (position, record)) in (1..).zip(&self.records) {
            if is_action(record) {
                shared.insert(*position, record.rows.clone());
            } else {
                let server_ingest_id = Some(ServerIngestId::new(number));
                let amendment = |patch: &Patch| Amendment { patch: patch.clone(), server_ingest_id };
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

    fn actions(&self) -> Vec<ReplayKey> {
        self.records.iter().filter(|(_, record)| is_action(record)).map(|(position, _)| *position).collect()
    }
}

fn is_action(record: &UploadRecord) -> bool {
    matches!(record.body, RecordBody::Action { .. })
}

/// Takes a turn on the server and in the model. What is beneath the compacted position, and nothing else, is refused.
async fn take(
    theatre: &Theatre,
    devices: &mut [Device; 2],
    model: &mut Model,
    now: i64,
    turn: &Turn,
) -> Result<(), TestCaseError> {
    let (device, position, record) = match turn {
        Turn::Compaction { through } => return compaction(theatre, model, through).await,
        Turn::Action { device, late, steps } => {
            let record = devices[*device].action(now - late, rows_of(steps, false));
            (*device, devices[*device].position(&record), record)
        }
        Turn::Correction { device, amends, steps } => {
            let actions = model.actions();
            if actions.is_empty() {
                return Ok(());
            }
            let position = *amends.get(&actions);
            (*device, position, devices[*device].correction(position, rows_of(steps, true)))
        }
    };
    let device = &mut devices[device];
    // As after a fetch or a snapshot: it has everything.
    device.cursors = device.session().await.audiences.into_iter().map(|head| (head.audience_key, head.head)).collect();
    match device.upload(vec![record.clone()]).await {
        Outcome::Accepted { .. } => {
            prop_assert!(model.compacted.is_none_or(|compacted| compacted < position), "{position:?} is final");
            model.records.push((position, record));
        }
        Outcome::TooOld { .. } => {
            prop_assert!(model.compacted.is_some_and(|compacted| position <= compacted), "{position:?} is not old");
        }
        outcome => prop_assert!(false, "{outcome:?}"),
    }
    Ok(())
}

async fn compaction(theatre: &Theatre, model: &mut Model, through: &prop::sample::Index) -> Result<(), TestCaseError> {
    let number = "SELECT coalesce(max(server_ingest_id), 0)::text FROM synchrotron.action_records";
    let newest: i64 = theatre.scalar(number).await.expect("a number").parse().expect("a number");
    let first = newest - i64::try_from(model.records.len()).expect("few");
    age(theatre, first + i64::try_from(through.index(model.records.len() + 1)).expect("few")).await;
    compact(theatre).await;
    let compacted = "SELECT compacted_clock || ' ' || compacted_client_id || ' ' || compacted_action_id \
        FROM synchrotron.audience_heads WHERE audience_key = 'project:p'";
    model.compacted = theatre.scalar(compacted).await.map(|text| position_of(&text));
    Ok(())
}

fn position_of(text: &str) -> ReplayKey {
    use synchrotron_core::model::{ActionId, ClientId, Hlc};
    let parts: Vec<&str> = text.split(' ').collect();
    ReplayKey {
        clock: Hlc::from_packed(parts[0].parse().expect("a clock")),
        client_id: ClientId::from_uuid(parts[1].parse().expect("a device")),
        action_id: ActionId::from_uuid(parts[2].parse().expect("an action")),
    }
}

async fn check(theatre: &Theatre, model: &Model) -> Result<(), TestCaseError> {
    let rows = model.rows();
    for row in ROWS {
        let expected = rows.get(row).map(|row| {
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

async fn run(theatre: &Theatre, turns: Vec<Turn>) -> Result<(), TestCaseError> {
    let empty = "TRUNCATE seats, synchrotron.action_records, synchrotron.action_modified_rows, \
        synchrotron.action_audiences, synchrotron.row_images, synchrotron.compacted_records, synchrotron.audience_heads";
    theatre.execute(empty).await;
    let mut devices = [theatre.device("alice"), theatre.device("bob")];
    let mut model = Model::default();
    for (now, turn) in (100..).step_by(5).zip(&turns) {
        take(theatre, &mut devices, &mut model, now, turn).await?;
        check(theatre, &model).await?;
    }
    Ok(())
}

#[test]
fn rows_are_the_fold_of_everything_whenever_it_was_compacted() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let theatre = runtime.block_on(open());
    let config = Config {
        cases: 60,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&arb_turns(), |turns| runtime.block_on(run(&theatre, turns)));
    assert!(
        result.is_ok(),
        "{}\nagain: SEED={seed} cargo test -p synchrotron-server --test service rows_are_the_fold_of_everything",
        result.expect_err("failed")
    );
}
