//! Random uploads against the model: rows equal the fold of effective patches by replay key.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use synchrotron_core::model::ReplayKey;
use synchrotron_core::wire::UploadRecord;

use crate::fixture::{Device, Theatre};
use crate::oracle::{Model, Step, arb_steps, once, patches_of};

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
    let turn =
        (0..2usize, 1..40i64, prop::option::weighted(0.3, any::<prop::sample::Index>()), arb_steps(), any::<bool>())
            .prop_map(|(device, at, amends, steps, held)| Turn { device, at, amends, steps, held });
    prop::collection::vec(turn, 1..14)
}

fn record_of(turn: &Turn, device: &Device, model: &Model) -> (ReplayKey, UploadRecord) {
    let actions = model.actions();
    let amends = turn.amends.filter(|_| !actions.is_empty()).map(|index| *index.get(&actions));
    let rows = patches_of(&turn.steps, amends.is_some(), false);
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
        .execute("TRUNCATE seats, synchrotron.action_records, synchrotron.action_modified_rows, synchrotron.staged_writes, \
                synchrotron.action_audiences, synchrotron.row_images CASCADE; UPDATE synchrotron.audience_heads SET head = 0")
        .await;
    let mut devices = [theatre.device("alice"), theatre.device("bob")];
    let mut model = Model::default();
    let first = devices[0].action(0, once());
    devices[0].sync(vec![first.clone()]).await;
    model.accept(devices[0].position(&first), &first);
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
        model.accept(position, &record);
    }
    for (device, batch) in devices.iter_mut().zip(held) {
        device.sync(batch).await;
    }
    model.check(theatre).await
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
