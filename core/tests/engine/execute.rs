//! ACT and DID: an action is executed whole or not at all.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry};
use synchrotron_core::engine::{Engine, ExecuteError, ExecuteInput, Limits};
use synchrotron_core::params;
use synchrotron_core::store::SqliteStore;

use crate::support::{Device, NOW, SCHEMA, settings, sql, tables};

#[derive(Serialize, Deserialize)]
struct TwoNotes {
    titles: (String, String),
}

impl Action for TwoNotes {
    const TAG: &'static str = "two_notes_v1";
    type Output = (String, i64, u64);

    fn run(&self, ctx: &mut Context<'_>) -> Result<Self::Output, ActionError> {
        let first = ctx.insert("notes", &[("owner", "alice".into()), ("title", (&self.titles.0).into())])?;
        ctx.insert("notes", &[("owner", "alice".into()), ("title", (&self.titles.1).into())])?;
        Ok((first.to_string(), ctx.timestamp_ms(), ctx.random_u64()))
    }
}

#[derive(Serialize, Deserialize)]
struct Panics {}

impl Action for Panics {
    const TAG: &'static str = "panics_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.execute("INSERT INTO lists (id, name, audience_key) VALUES ('l', 'x', 'p')", params![])?;
        panic!("this action panics");
    }
}

#[derive(Serialize, Deserialize)]
struct NoMap(i64);

impl Action for NoMap {
    const TAG: &'static str = "no_map_v1";
    type Output = ();
    fn run(&self, _: &mut Context<'_>) -> Result<(), ActionError> {
        Ok(())
    }
}

fn engine(folder: &tempfile::TempDir, limits: Limits) -> Engine<SqliteStore> {
    let store = SqliteStore::open(&settings(&folder.path().join("app.db"), SCHEMA, tables())).expect("opens");
    let mut registry = Registry::default();
    registry.register::<TwoNotes>().expect("new");
    registry.register::<Panics>().expect("new");
    registry.register::<NoMap>().expect("new");
    Engine::new(store, registry, &tables(), limits)
}

fn input(n: u128) -> ExecuteInput {
    let action_id = synchrotron_core::model::ActionId::from_uuid(uuid::Uuid::from_u128(n));
    ExecuteInput::new(action_id, NOW)
}

#[test]
fn act_07_output_comes_at_once_and_the_action_is_pending() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = engine(&folder, Limits::default());
    let action = TwoNotes { titles: ("a".into(), "b".into()) };
    let first = engine.execute(&action, input(1)).expect("runs");
    assert_eq!(first.output.1, NOW);
    assert_eq!(first.committed.rows.len(), 2);
    assert_eq!(engine.pending_count().expect("counts"), 1);
    let other = engine.execute(&action, input(2)).expect("runs");
    assert_ne!(first.output.0, other.output.0, "another action, another id");
    assert_ne!(first.output.2, other.output.2, "another action, other random numbers");
}

#[test]
fn did_07_two_inserts_of_one_identity_name_table_and_columns_and_leave_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = engine(&folder, Limits::default());
    let error = engine.execute(&TwoNotes { titles: ("a".into(), "a".into()) }, input(1)).expect_err("collides");
    let columns = vec!["owner".to_owned(), "title".to_owned()];
    assert_eq!(error, ExecuteError::Action(ActionError::IdentityCollision { table: "notes".into(), columns }));
    assert_eq!(engine.pending_count().expect("counts"), 0);
}

#[test]
fn a_panic_leaves_nothing_and_the_engine_lives_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = engine(&folder, Limits::default());
    let error = engine.execute(&Panics {}, input(1)).expect_err("panics");
    assert_eq!(error, ExecuteError::Action(ActionError::Panicked { tag: "panics_v1".into() }));
    assert_eq!(engine.pending_count().expect("counts"), 0);
    engine.execute(&TwoNotes { titles: ("a".into(), "b".into()) }, input(2)).expect("the engine lives on");
}

#[test]
fn arguments_that_are_no_map_and_unregistered_actions_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = engine(&folder, Limits::default());
    assert!(matches!(engine.execute(&NoMap(1), input(1)), Err(ExecuteError::ArgumentsNoMap { .. })));
    assert!(matches!(engine.execute(&sql(&[]), input(2)), Err(ExecuteError::Unregistered { .. })));
}

#[test]
fn an_action_too_large_to_upload_is_refused_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = Limits { action_bytes_max: 2_000, ..Limits::default() };
    let mut engine = engine(&folder, limits);
    let large = TwoNotes { titles: ("x".repeat(3_000), "b".into()) };
    assert!(matches!(engine.execute(&large, input(1)), Err(ExecuteError::TooLarge { max: 2_000, .. })));
    assert_eq!(engine.pending_count().expect("counts"), 0);
}

#[test]
fn act_09_a_failing_action_leaves_neither_rows_nor_record_nor_clock() {
    let mut device = Device::new();
    device
        .run(&["INSERT INTO lists (id, name, audience_key) VALUES ('l', 'x', 'p')", "INSERT INTO nowhere VALUES (1)"])
        .expect_err("no such table");
    assert_eq!(device.count("lists"), 0);
    assert_eq!(device.count("local_undo"), 0);
    assert_eq!(device.rows("SELECT clock FROM client_sync_status")[0]["clock"], 0.into());
}

#[test]
fn act_10_an_action_without_effect_is_recorded_and_uploaded_with_no_rows() {
    let mut device = Device::new();
    let id = device.run(&["UPDATE lists SET name = 'x'"]).expect("runs");
    assert_eq!(device.pending(), [(id, vec![])]);
}

#[test]
fn actions_reach_neither_sync_tables_nor_untracked_ones_nor_schema_nor_transactions() {
    let mut device = Device::new();
    for forbidden in [
        "UPDATE client_sync_status SET user_id = 'mallory'",
        "DELETE FROM action_records",
        "INSERT INTO local_undo (action_id, table_name, row_id, audience_key, operation, image) VALUES (1, 2, 3, 4, 5, 6)",
        "INSERT INTO untracked (id) VALUES ('u')",
        "CREATE TABLE t (id TEXT)",
        "DROP TRIGGER synchrotron_insert_lists",
        "COMMIT",
        "/* hidden */ ROLLBACK",
        "SAVEPOINT s",
        "PRAGMA foreign_keys = OFF",
        "ATTACH ':memory:' AS other",
    ] {
        let error = device.run(&[forbidden]).expect_err(forbidden);
        assert!(matches!(error, ExecuteError::Action(ActionError::Sql(_))), "{forbidden}: {error}");
    }
    assert_eq!(device.pending(), []);
}
