//! U20: the check that finds impure actions while they are written.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry, Table};
use synchrotron_core::engine::{Differs, ExecuteError, Impurity, RowDifference};
use synchrotron_core::model::{Operation, RowId, TableName};
use synchrotron_core::params;

use crate::versions::{Phone, Version};

const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS cards (id TEXT PRIMARY KEY, title TEXT, place INTEGER, audience_key TEXT NOT NULL)";

static COUNTER: AtomicI64 = AtomicI64::new(0);
/// Counted by one test only, so that its turns are its own.
static TURNS: AtomicI64 = AtomicI64::new(0);

#[derive(Serialize, Deserialize)]
enum Impure {
    /// Writes a value from outside.
    Counts,
    /// Chooses a row id by a value from outside.
    CountsRows,
    /// Chooses an audience by a value from outside.
    CountsAudiences,
    /// Lets a hash map order its inserts.
    Shuffles,
    /// Fails every other time.
    FailsByTurns,
    /// Does the same every time.
    Pure,
}

#[derive(Serialize, Deserialize)]
struct Do {
    what: Impure,
}

impl Action for Do {
    const TAG: &'static str = "do_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let count = COUNTER.fetch_add(1, Ordering::Relaxed);
        let insert = "INSERT INTO cards (id, title, place, audience_key) VALUES (?, ?, ?, 'p')";
        match self.what {
            Impure::Counts => ctx.execute(insert, params!["row", "secret", count]).map(drop),
            Impure::CountsRows => ctx.execute(insert, params![format!("row {count}"), "x", 0]).map(drop),
            Impure::CountsAudiences => {
                let insert = "INSERT INTO cards (id, title, place, audience_key) VALUES ('row', 'x', 0, ?)";
                ctx.execute(insert, params![format!("project:{count}")]).map(drop)
            }
            Impure::Shuffles => {
                // Two maps of 64 keys have one order about never.
                let map: HashMap<i64, ()> = (0..64).map(|n| (n, ())).collect();
                map.keys().try_for_each(|n| ctx.execute(insert, params![n.to_string(), "x", 0]).map(drop))
            }
            Impure::FailsByTurns if TURNS.fetch_add(1, Ordering::Relaxed) % 2 == 0 => {
                Err(ActionError::reject("not this time"))
            }
            Impure::FailsByTurns => Ok(()),
            Impure::Pure => {
                let random = ctx.random_u64().cast_signed();
                let now = ctx.timestamp_ms();
                ctx.execute(insert, params!["row", now.to_string(), random]).map(drop)
            }
        }
    }
}

fn phone(check: bool) -> Phone {
    let mut registry = Registry::default();
    registry.register::<Do>().expect("new");
    let tables = vec![Table::new("cards").given_ids()];
    let mut phone = Phone::new(&Version { schema: SCHEMA.to_owned(), tables, registry });
    phone.engine.check_purity(check);
    phone
}

fn impurity(what: Impure) -> Impurity {
    let mut phone = phone(true);
    let error = phone.execute(&Do { what }).expect_err("impure");
    assert_eq!(phone.rows("SELECT * FROM cards"), [], "nothing of it stays");
    match error {
        ExecuteError::Impure { tag, difference } if tag.as_str() == "do_v1" => difference,
        other => panic!("expected an impurity, not {other}"),
    }
}

fn row(id: &str, differs: Differs) -> RowDifference {
    let table = TableName::new("cards").expect("ok");
    RowDifference { table, row_id: RowId::new(id).expect("ok"), differs }
}

#[test]
fn u20_a_value_from_outside_is_named_by_its_column_and_never_shown() {
    let found = impurity(Impure::Counts);
    assert_eq!(found, Impurity::Rows(vec![row("row", Differs::Column("place".into()))]));
    assert_eq!(found.to_string(), "row row of cards: column place");
}

#[test]
fn u20_a_row_that_only_one_run_has_is_named() {
    let Impurity::Rows(rows) = impurity(Impure::CountsRows) else { panic!("rows differ") };
    let operations: Vec<_> = rows.into_iter().map(|row| row.differs).collect();
    let (first, second) = (Some(Operation::Insert), None);
    let only_first = Differs::Operation { first, second };
    let only_second = Differs::Operation { first: second, second: first };
    assert!(operations.contains(&only_first) && operations.contains(&only_second), "{operations:?}");
}

/// Not as two rows, one of each run.
#[test]
fn u20_a_row_in_another_audience_is_named_once() {
    let found = impurity(Impure::CountsAudiences);
    assert_eq!(found, Impurity::Rows(vec![row("row", Differs::Audience)]));
    assert_eq!(found.to_string(), "row row of cards: audience_key");
}

#[test]
fn u20_the_order_of_a_hash_map_is_found() {
    assert_eq!(impurity(Impure::Shuffles), Impurity::Order);
}

#[test]
fn u20_an_action_that_fails_in_one_of_two_runs_is_impure() {
    assert_eq!(impurity(Impure::FailsByTurns), Impurity::Outcome);
}

#[test]
fn u20_a_pure_action_runs_twice_and_leaves_one_effect() {
    let mut phone = phone(true);
    phone.execute(&Do { what: Impure::Pure }).expect("pure");
    assert_eq!(phone.unsent().remove(0).rows.len(), 1);
    assert_eq!(phone.rows("SELECT * FROM cards").len(), 1);
}

#[test]
fn u20_without_the_check_an_impure_action_runs_once() {
    let mut phone = phone(false);
    phone.execute(&Do { what: Impure::Counts }).expect("nobody looks");
    assert_eq!(phone.unsent().len(), 1);
}
