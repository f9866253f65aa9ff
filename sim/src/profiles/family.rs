//! Constraints of the database itself: unique names, foreign keys, cascades.

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::params;

use crate::fleet::Fleet;
use crate::intent::Intent;
use crate::plan::Mix;
use crate::rows::{Rows, View};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS parents (
    id TEXT PRIMARY KEY, name TEXT UNIQUE, audience_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS children (
    id TEXT PRIMARY KEY, parent TEXT NOT NULL REFERENCES parents (id) ON DELETE CASCADE, age INTEGER,
    audience_key TEXT NOT NULL)";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Parent {
        id: String,
        name: String,
    },
    Rename {
        id: String,
        name: String,
    },
    /// Swaps two unique names through a third.
    Swap {
        a: String,
        b: String,
    },
    Leave {
        id: String,
    },
    Child {
        parent: String,
    },
    Birthday {
        parent: String,
    },
    Orphan {
        child: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Family {
    change: Change,
}

impl Action for Family {
    const TAG: &'static str = "family_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let rename = "UPDATE parents SET name = ? WHERE id = ?";
        match &self.change {
            Change::Parent { id, name } => ctx
                .insert("parents", &[("id", id.into()), ("name", name.into()), ("audience_key", "P".into())])
                .map(drop),
            Change::Rename { id, name } => ctx.execute(rename, params![name, id]).map(drop),
            Change::Swap { a, b } => {
                let name = |ctx: &mut Context<'_>, id: &String| -> Result<Option<String>, ActionError> {
                    let row = ctx.query_one("SELECT name FROM parents WHERE id = ?", params![id])?;
                    row.map(|row| row.get("name")).transpose().map(Option::flatten)
                };
                let (name_a, name_b) = (name(ctx, a)?, name(ctx, b)?);
                ctx.execute(rename, params![None::<String>, a])?;
                ctx.execute(rename, params![name_a, b])?;
                ctx.execute(rename, params![name_b, a]).map(drop)
            }
            Change::Leave { id } => ctx.execute("DELETE FROM parents WHERE id = ?", params![id]).map(drop),
            Change::Child { parent } => ctx
                .insert("children", &[("parent", parent.into()), ("age", 0.into()), ("audience_key", "P".into())])
                .map(drop),
            Change::Birthday { parent } => {
                ctx.execute("UPDATE children SET age = age + 1 WHERE parent = ?", params![parent]).map(drop)
            }
            Change::Orphan { child } => ctx.execute("DELETE FROM children WHERE id = ?", params![child]).map(drop),
        }
    }
}

fn every_child_has_a_parent(rows: &Rows) -> Result<(), String> {
    match rows
        .of("children")
        .find(|(_, row)| Rows::text(row, "parent").is_none_or(|id| rows.row("parents", id).is_none()))
    {
        Some((id, _)) => Err(format!("child {id} has no parent")),
        None => Ok(()),
    }
}

fn names_differ(rows: &Rows) -> Result<(), String> {
    let mut names = std::collections::BTreeSet::new();
    let taken = rows.of("parents").filter_map(|(_, row)| Rows::text(row, "name")).find(|name| !names.insert(*name));
    taken.map_or(Ok(()), |name| Err(format!("two parents are called {name}")))
}

fn draw(random: &mut StdRng, view: &View<'_>) -> Option<Intent> {
    let mut one = |of: &str, count: u32| format!("{of}{}", random.random_range(0..count));
    let (id, other, name) = (one("p", 4), one("p", 4), one("n", 4));
    let change = match random.random_range(0..12) {
        0..=2 => Change::Parent { id, name },
        3 => Change::Rename { id, name },
        4 => Change::Swap { a: id, b: other },
        5 | 6 => Change::Leave { id },
        7..=9 => Change::Child { parent: id },
        10 => Change::Birthday { parent: id },
        _ => Change::Orphan { child: view.rows.of("children").next()?.0.to_string() },
    };
    Some(Intent::of(&Family { change }))
}

pub(super) fn fleet(name: &str, mix: Mix) -> Fleet {
    Fleet::builder(name)
        .schema(SCHEMA)
        .table(Table::new("parents").given_ids())
        .table(Table::new("children").identity(["parent"]))
        .action::<Family>()
        .member("ann", ["P"])
        .member("ben", ["P"])
        .member("cat", ["P"])
        .workload(draw)
        .rule("every child has a parent", every_child_has_a_parent)
        .rule("names differ", names_differ)
        .mix(mix)
        .build()
}
