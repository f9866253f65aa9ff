//! Random uploads with compaction in between, against the model: rows equal the fold of everything that was ever accepted.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use synchrotron_core::model::ReplayKey;
use synchrotron_core::wire::{Outcome, RejectionKind};

use crate::compaction::{age, compact, open};
use crate::fixture::{Device, Theatre};
use crate::oracle::{Model, Step, arb_steps, once, patches_of};

/// One record, an action about now or a correction of the nth action before it; or a compaction.
#[derive(Debug, Clone)]
enum Turn {
    Action { device: usize, late: i64, steps: Vec<Step> },
    Correction { device: usize, amends: prop::sample::Index, steps: Vec<Step> },
    Compaction { through: prop::sample::Index },
}

fn arb_turns() -> impl Strategy<Value = Vec<Turn>> {
    let steps = arb_steps;
    let turn = prop_oneof![
        4 => (0..2usize, 0..30i64, steps()).prop_map(|(device, late, steps)| Turn::Action { device, late, steps }),
        2 => (0..2usize, any::<prop::sample::Index>(), steps())
            .prop_map(|(device, amends, steps)| Turn::Correction { device, amends, steps }),
        2 => any::<prop::sample::Index>().prop_map(|through| Turn::Compaction { through }),
    ];
    prop::collection::vec(turn, 1..24)
}

/// What was accepted, and the position at and beneath which nothing is any more.
#[derive(Default)]
struct History {
    model: Model,
    compacted: Option<ReplayKey>,
}

/// Takes a turn on the server and in the model. What is beneath the compacted position, and nothing else, is refused.
async fn take(
    theatre: &Theatre,
    devices: &mut [Device; 2],
    history: &mut History,
    now: i64,
    turn: &Turn,
) -> Result<(), TestCaseError> {
    let (device, position, record) = match turn {
        Turn::Compaction { through } => return compaction(theatre, history, through).await,
        Turn::Action { device, late, steps } => {
            let record = devices[*device].action(now - late, patches_of(steps, false, true));
            (*device, devices[*device].position(&record), record)
        }
        Turn::Correction { device, amends, steps } => {
            let actions = history.model.actions();
            if actions.is_empty() {
                return Ok(());
            }
            let position = *amends.get(&actions);
            (*device, position, devices[*device].correction(position, patches_of(steps, true, true)))
        }
    };
    let device = &mut devices[device];
    // As after a fetch or a snapshot: it has everything.
    device.cursors = device.session().await.audiences.into_iter().map(|head| (head.audience_key, head.head)).collect();
    match device.upload(vec![record.clone()]).await {
        Outcome::Accepted { .. } => {
            prop_assert!(history.compacted.is_none_or(|compacted| compacted < position), "{position:?} is final");
            history.model.accept(position, &record);
        }
        Outcome::TooOld { .. } => {
            prop_assert!(history.compacted.is_some_and(|compacted| position <= compacted), "{position:?} is not old");
        }
        // What is compacted away may be all that was known of a row that is gone.
        Outcome::Rejected { kind: RejectionKind::Denied, reason, .. } => {
            let unknown = history.compacted.is_some() && reason.contains("never was there");
            prop_assert!(unknown, "{reason}");
        }
        outcome => prop_assert!(false, "{outcome:?}"),
    }
    Ok(())
}

async fn compaction(
    theatre: &Theatre,
    history: &mut History,
    through: &prop::sample::Index,
) -> Result<(), TestCaseError> {
    let number = "SELECT coalesce(max(server_ingest_id), 0)::text FROM synchrotron.action_records";
    let newest: i64 = theatre.scalar(number).await.expect("a number").parse().expect("a number");
    let first = newest - i64::try_from(history.model.len()).expect("few");
    age(theatre, first + i64::try_from(through.index(history.model.len() + 1)).expect("few")).await;
    compact(theatre).await;
    let compacted = "SELECT compacted_clock || ' ' || compacted_client_id || ' ' || compacted_action_id \
        FROM synchrotron.audience_heads WHERE audience_key = 'project:p'";
    history.compacted = theatre.scalar(compacted).await.map(|text| position_of(&text));
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

async fn run(theatre: &Theatre, turns: Vec<Turn>) -> Result<(), TestCaseError> {
    let empty = "TRUNCATE seats, synchrotron.action_records, synchrotron.action_modified_rows, \
        synchrotron.action_audiences, synchrotron.row_images, synchrotron.compacted_records, synchrotron.audience_heads, synchrotron.staged_writes";
    theatre.execute(empty).await;
    let mut devices = [theatre.device("alice"), theatre.device("bob")];
    let mut history = History::default();
    let first = devices[0].action(1, once());
    let accepted = devices[0].upload(vec![first.clone()]).await;
    prop_assert!(matches!(accepted, Outcome::Accepted { .. }), "{:?}", accepted);
    history.model.accept(devices[0].position(&first), &first);
    for (now, turn) in (100..).step_by(5).zip(&turns) {
        take(theatre, &mut devices, &mut history, now, turn).await?;
        history.model.check(theatre).await?;
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
