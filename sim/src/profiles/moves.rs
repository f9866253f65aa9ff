//! Rows that move between audiences, which is a delete and an insert; to where, another row says.

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::params;

use crate::fleet::Fleet;
use crate::intent::Intent;
use crate::plan::Mix;
use crate::rows::View;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS things (
    id TEXT PRIMARY KEY, name TEXT, worn INTEGER, audience_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS signs (id TEXT PRIMARY KEY, way TEXT NOT NULL, audience_key TEXT NOT NULL)";

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Put {
        id: String,
        audience: String,
    },
    Name {
        id: String,
        name: String,
    },
    Wear {
        id: String,
    },
    Drop {
        id: String,
    },
    /// Each audience has a sign that says where things go; without it they go to the audience itself.
    Sign {
        audience: String,
        way: String,
    },
    Move {
        id: String,
        sign: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Moves {
    change: Change,
}

fn put(ctx: &mut Context<'_>, id: &str, name: Option<String>, worn: i64, audience: &str) -> Result<(), ActionError> {
    let row = [("id", id.into()), ("name", name.into()), ("worn", worn.into()), ("audience_key", audience.into())];
    ctx.insert("things", &row).map(drop)
}

impl Action for Moves {
    const TAG: &'static str = "moves_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        match &self.change {
            Change::Put { id, audience } => put(ctx, id, None, 0, audience),
            Change::Name { id, name } => {
                ctx.execute("UPDATE things SET name = ? WHERE id = ?", params![name, id]).map(drop)
            }
            Change::Wear { id } => ctx.execute("UPDATE things SET worn = worn + 1 WHERE id = ?", params![id]).map(drop),
            Change::Drop { id } => ctx.execute("DELETE FROM things WHERE id = ?", params![id]).map(drop),
            Change::Sign { audience, way } => {
                match ctx.execute("UPDATE signs SET way = ? WHERE id = ?", params![way, audience])? {
                    0 => ctx
                        .insert(
                            "signs",
                            &[("id", audience.into()), ("way", way.into()), ("audience_key", audience.into())],
                        )
                        .map(drop),
                    _ => Ok(()),
                }
            }
            Change::Move { id, sign } => {
                let found = ctx.query_one("SELECT name, worn FROM things WHERE id = ?", params![id])?;
                let thing = found.ok_or_else(|| ActionError::reject("no such thing"))?;
                let found = ctx.query_one("SELECT way FROM signs WHERE id = ?", params![sign])?;
                let way = found.map_or_else(|| Ok(sign.clone()), |sign| sign.get("way"))?;
                ctx.execute("DELETE FROM things WHERE id = ?", params![id])?;
                put(ctx, id, thing.get("name")?, thing.get("worn")?, &way)
            }
        }
    }
}

fn draw(random: &mut StdRng, view: &View<'_>) -> Option<Intent> {
    let audiences: Vec<&str> = view.audiences.iter().map(|audience| audience.as_str()).collect();
    let mut one_of = |audiences: &[&str]| match audiences.len() {
        0 => None,
        count => Some(audiences[random.random_range(0..count)].to_owned()),
    };
    let (audience, way) = (one_of(&audiences)?, one_of(&audiences)?);
    let id = format!("t{}", random.random_range(0..4));
    let change = match random.random_range(0..16) {
        0..=2 => Change::Put { id, audience },
        3 => Change::Name { id, name: format!("n{}", random.random_range(0..4)) },
        4 | 5 => Change::Wear { id },
        6 => Change::Drop { id },
        7..=9 => Change::Sign { audience, way },
        _ => Change::Move { id, sign: audience },
    };
    Some(Intent::of(&Moves { change }))
}

/// Users of one audience, of the other, of both, and of a third one too. An id is refused in a second audience: then its
/// action is in quarantine.
pub(super) fn fleet(name: &str, mix: Mix) -> Fleet {
    Fleet::builder(name)
        .schema(SCHEMA)
        .table(Table::new("things").given_ids())
        .table(Table::new("signs").given_ids())
        .action::<Moves>()
        .member("ann", ["P", "Q"])
        .member("ben", ["P", "Q", "R"])
        .member("cat", ["P"])
        .member("dan", ["Q"])
        .member("eve", ["P", "Q", "R"])
        .workload(draw)
        .mix(mix)
        .build()
}
