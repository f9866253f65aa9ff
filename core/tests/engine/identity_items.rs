//! DID: items of the behaviours to test that concern row ids.
//!
//! DID-02 (an id without a running action) cannot be written: only a running action has a `Context`. DID-07 is in
//! `execute`.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry};
use synchrotron_core::engine::{Engine, ExecuteError, ExecuteInput, Limits};
use synchrotron_core::model::{ActionId, Value};
use synchrotron_core::store::SqliteStore;
use uuid::Uuid;

use crate::support::{NOW, SCHEMA, settings, tables};

/// Asks for ids, and inserts nothing.
#[derive(Serialize, Deserialize)]
struct Ask {
    table: String,
    rows: Vec<Vec<(String, Value)>>,
}

impl Action for Ask {
    const TAG: &'static str = "ask_v1";
    type Output = Vec<String>;

    fn run(&self, ctx: &mut Context<'_>) -> Result<Vec<String>, ActionError> {
        let id = |row: &Vec<(String, Value)>| {
            let row: Vec<(&str, Value)> = row.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
            ctx.row_id(&self.table, &row).map(|id| id.to_string())
        };
        self.rows.iter().map(id).collect()
    }
}

type Row<'a> = &'a [(&'a str, Value)];

/// The ids of these rows within one action.
fn ask(action: u128, table: &str, rows: &[Row<'_>]) -> Result<Vec<String>, ExecuteError> {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&settings(&folder.path().join("app.db"), SCHEMA, tables())).expect("opens");
    let mut registry = Registry::default();
    registry.register::<Ask>().expect("new");
    let mut engine = Engine::new(store, registry, &tables(), Limits::default());
    let owned = |row: &Row<'_>| row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let ask = Ask { table: table.to_owned(), rows: rows.iter().map(owned).collect() };
    let input = ExecuteInput::new(ActionId::from_uuid(Uuid::from_u128(action)), NOW);
    engine.execute(&ask, input).map(|executed| executed.output)
}

fn note<'a>(owner: &str, title: impl Into<Value>) -> [(&'a str, Value); 2] {
    [("owner", owner.into()), ("title", title.into())]
}

#[test]
fn did_01_an_id_follows_from_action_and_identity_and_from_nothing_else() {
    let rows: [Row<'_>; 3] = [&note("a", "t"), &note("a", "t"), &note("a", "changed")];
    let first = ask(1, "notes", &rows).expect("ids");
    assert_eq!(first[0], first[1], "the same row twice, no hidden counter");
    assert_ne!(first[0], first[2]);
    assert_eq!(ask(1, "notes", &rows).expect("ids"), first, "the same action again, on another database");
    let version = Uuid::parse_str(&first[0]).expect("a UUID").get_version_num();
    assert_eq!(version, 5);
}

#[test]
fn did_04_a_table_without_identity_is_named() {
    let error = ask(1, "elsewhere", &[&note("a", "t")]).expect_err("not tracked");
    assert_eq!(error, ExecuteError::Action(ActionError::UntrackedTable { table: "elsewhere".into() }));
}

#[test]
fn did_05_a_row_without_its_identity_columns_is_named() {
    let lacking = [("owner", Value::from("a"))];
    let error = ask(1, "notes", &[&lacking]).expect_err("lacks a title");
    let missing = |table: &str, column: &str| {
        ExecuteError::Action(ActionError::IdentityColumnMissing { table: table.into(), column: column.into() })
    };
    assert_eq!(error, missing("notes", "title"));
    let no_id = [("name", Value::from("a"))];
    assert_eq!(ask(1, "lists", &[&no_id]).expect_err("lacks an id"), missing("lists", "id"), "given ids are given");
}

#[test]
fn did_06_only_identity_columns_count_in_any_order_by_value_and_kind() {
    let base = ask(1, "notes", &[&note("a", "t")]).expect("ids").remove(0);
    let same: [Row<'_>; 2] = [
        &[("title", "t".into()), ("owner", "a".into())],
        &[("id", "ignored".into()), ("owner", "a".into()), ("body", "other".into()), ("title", "t".into())],
    ];
    assert!(ask(1, "notes", &same).expect("ids").iter().all(|id| *id == base));
    let different: [Row<'_>; 8] = [
        &note("a", "T"),
        &note("at", ""),
        &note("", "at"),
        &note("a", Value::Null),
        &note("a", ""),
        &note("a", "null"),
        &note("a", 1),
        &note("a", "1"),
    ];
    let ids = ask(1, "notes", &different).expect("ids");
    let distinct: std::collections::BTreeSet<&String> = ids.iter().chain([&base]).collect();
    assert_eq!(distinct.len(), different.len() + 1, "{ids:?}");
    // Two users who create "the same" thing in two actions get two rows: uniqueness is the app's rule to check.
    assert_ne!(ask(2, "notes", &[&note("a", "t")]).expect("ids").remove(0), base);
}
