//! Random plain writes, uploads and pick-ups: whenever nothing is staged, the log comes to what the tables have.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use synchrotron_core::model::{Effect, Patch, Value};

use super::now_ms;
use crate::fixture::{Theatre, columns, patch};

const ROWS: [&str; 4] = ["w", "x", "y", "z"];

/// Labels are normalized before they are written, and bent back; a row's shadow goes with it.
const SCHEMA: &str = "CREATE TABLE shadows (id text PRIMARY KEY REFERENCES seats ON DELETE CASCADE, audience_key text, \
        times int NOT NULL DEFAULT 0); GRANT ALL ON shadows TO synchrotron_user; \
    CREATE FUNCTION bend() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF NEW.label = '3' THEN NEW.label := '4'; END IF; \
        IF TG_OP = 'UPDATE' AND NEW.holder = '3' THEN NEW.holder := OLD.holder; END IF; RETURN NEW; END $$; \
    CREATE TRIGGER bends BEFORE INSERT OR UPDATE ON seats FOR EACH ROW EXECUTE FUNCTION bend(); \
    CREATE FUNCTION shadow() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN \
        INSERT INTO shadows VALUES (NEW.id, NEW.audience_key, 1) ON CONFLICT (id) \
            DO UPDATE SET times = shadows.times + 1, audience_key = excluded.audience_key; RETURN NULL; END $$; \
    CREATE TRIGGER shadows AFTER INSERT OR UPDATE ON seats FOR EACH ROW EXECUTE FUNCTION shadow()";

#[derive(Debug, Clone)]
enum Step {
    /// One statement, on one row or on all.
    Sql { row: Option<usize>, kind: u8, value: u8, both: bool },
    /// One action of a device, at this many milliseconds around now.
    Upload { device: usize, at: i64, effects: Vec<(usize, u8, u8, bool)> },
    /// One pass.
    PickUp,
}

fn arb_steps() -> impl Strategy<Value = Vec<Step>> {
    let sql = (prop::option::weighted(0.8, 0..ROWS.len()), 0..9u8, 0..5u8, any::<bool>())
        .prop_map(|(row, kind, value, both)| Step::Sql { row, kind, value, both });
    let effects = prop::collection::vec((0..ROWS.len(), 0..7u8, 0..5u8, any::<bool>()), 1..4);
    let upload = (0..2usize, -40..40i64, effects).prop_map(|(device, at, effects)| Step::Upload {
        device,
        at: at * 500,
        effects,
    });
    let step = prop_oneof![4 => sql, 4 => upload, 2 => Just(Step::PickUp)];
    prop::collection::vec(step, 1..16)
}

fn statement(row: Option<usize>, kind: u8, value: u8, both: bool) -> String {
    let wanted = row.map_or("true".to_owned(), |row| format!("id = '{}'", ROWS[row]));
    let one = ROWS[row.unwrap_or(0)];
    let audience = if both { "project:p" } else { "project:q" };
    match kind {
        0 | 1 => format!("INSERT INTO seats VALUES ('{one}', '{value}', NULL, '{audience}') ON CONFLICT DO NOTHING"),
        2 => format!("DELETE FROM seats WHERE {wanted}"),
        3 => format!("UPDATE seats SET audience_key = '{audience}' WHERE {wanted}"),
        4 => format!("UPDATE shadows SET times = {value} WHERE {wanted}"),
        5 => format!(
            "BEGIN; DELETE FROM seats WHERE id = '{one}'; INSERT INTO seats VALUES ('{one}', NULL, '{value}', '{audience}'); COMMIT"
        ),
        6 => "TRUNCATE seats, shadows".to_owned(),
        _ if both => format!("UPDATE seats SET holder = '{value}' WHERE {wanted}"),
        _ => format!("UPDATE seats SET label = '{value}' WHERE {wanted}"),
    }
}

fn effect(&(row, kind, value, both): &(usize, u8, u8, bool)) -> Patch {
    let value: Value = value.to_string().into();
    let mut set = columns([("label", value.clone())]);
    if both {
        set = columns([("holder", value)]);
    }
    let effect = match kind {
        0 | 1 => Effect::Insert(columns([
            ("label", set.get("label").cloned().into()),
            ("holder", set.get("holder").cloned().into()),
        ])),
        2 => Effect::Delete,
        _ => Effect::Update(set),
    };
    patch("seats", ROWS[row], "project:p", effect)
}

async fn run(theatre: &Theatre, steps: Vec<Step>) -> Result<(), TestCaseError> {
    theatre
        .execute(
            "TRUNCATE seats, shadows, synchrotron.action_records, synchrotron.action_modified_rows, \
             synchrotron.action_audiences, synchrotron.staged_writes, synchrotron.row_images CASCADE; \
             UPDATE synchrotron.audience_heads SET head = 0; DELETE FROM synchrotron.staged_writes",
        )
        .await;
    let mut devices = [theatre.device("alice"), theatre.device("bob")];
    for step in steps {
        match step {
            Step::Sql { row, kind, value, both } => theatre.execute(&statement(row, kind, value, both)).await,
            Step::Upload { device, at, effects } => {
                let device = &mut devices[device];
                device.catch_up().await;
                // Of a row that is another audience's now, it is refused.
                device.upload(vec![device.action(now_ms() + at, effects.iter().map(effect).collect())]).await;
            }
            Step::PickUp => drop(theatre.service.pick_up_sql_writes().await.expect("picks up")),
        }
    }
    theatre.pick_up().await;
    theatre.assert_in_step(&["alice", "bob"]).await;
    Ok(())
}

#[test]
fn log_and_tables_agree_whenever_nothing_is_staged() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let bounds = |settings: &mut synchrotron_server::settings::Settings| settings.sql_writes.batch_rows_max = 3;
    let theatre = runtime.block_on(Theatre::open_with(SCHEMA, &["shadows"], bounds));
    let config = Config {
        cases: 40,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&arb_steps(), |steps| runtime.block_on(run(&theatre, steps)));
    assert!(
        result.is_ok(),
        "{}\nrun it again with SEED={seed} cargo test -p synchrotron-server --test service \
         log_and_tables_agree_whenever_nothing_is_staged",
        result.expect_err("failed")
    );
}
