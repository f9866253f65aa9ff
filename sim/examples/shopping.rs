//! An app's own actions in the simulator: a shared shopping list, in which an item is bought once.
//!
//! `cargo run -p synchrotron-sim --example shopping` runs a hundred seeds; `cargo test` runs a few.

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::params;
use synchrotron_sim::{Fleet, Intent, Mix, Rows, View};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, wanted INTEGER NOT NULL, bought INTEGER NOT NULL,
    audience_key TEXT NOT NULL)";

/// Puts some of an item on the list.
#[derive(Serialize, Deserialize)]
struct Want {
    name: String,
    count: i64,
}

impl Action for Want {
    const TAG: &'static str = "want_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let more = "UPDATE items SET wanted = wanted + ? WHERE id = ?";
        if ctx.execute(more, params![self.count, &self.name])? == 0 {
            let name = &self.name;
            let row = [
                ("id", name.into()),
                ("name", name.into()),
                ("wanted", self.count.into()),
                ("bought", 0.into()),
                ("audience_key", "family".into()),
            ];
            ctx.insert("items", &row)?;
        }
        Ok(())
    }
}

/// Buys some of an item; the rule is that nobody buys what is not wanted any more.
#[derive(Serialize, Deserialize)]
struct Buy {
    name: String,
    count: i64,
}

impl Action for Buy {
    const TAG: &'static str = "buy_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let buy = "UPDATE items SET bought = bought + ?1 WHERE id = ?2 AND bought + ?1 <= wanted";
        match ctx.execute(buy, params![self.count, &self.name])? {
            0 => Err(ActionError::reject("not wanted")),
            _ => Ok(()),
        }
    }
}

fn next(random: &mut StdRng, view: &View<'_>) -> Option<Intent> {
    let count = random.random_range(1..4);
    if random.random_bool(0.4) {
        let name = ["bread", "milk", "tea"][random.random_range(0..3)].to_owned();
        return Some(Intent::of(&Want { name, count }));
    }
    // Users act on what they see.
    let (id, _) = view.rows.of("items").find(|(_, row)| Rows::integer(row, "bought") < Rows::integer(row, "wanted"))?;
    Some(Intent::of(&Buy { name: id.to_string(), count }))
}

fn never_too_much(rows: &Rows) -> Result<(), String> {
    match rows.of("items").find(|(_, row)| Rows::integer(row, "bought") > Rows::integer(row, "wanted")) {
        Some((id, _)) => Err(format!("too much {id} was bought")),
        None => Ok(()),
    }
}

fn fleet() -> Fleet {
    Fleet::builder("shopping")
        .schema(SCHEMA)
        .table(Table::new("items").given_ids())
        .action::<Want>()
        .action::<Buy>()
        .member("ann", ["family"])
        .member("ben", ["family"])
        .workload(next)
        .rule("never too much", never_too_much)
        .mix(Mix { steps: 80, ..Mix::default() })
        .build()
}

fn main() {
    fleet().check(0..100);
}

#[test]
fn nothing_is_bought_twice() {
    let tally = fleet().check(0..4);
    assert!(tally.executed > 0, "people went shopping");
}
