//! Actions of every bad kind: conditional on private rows, on what is visible, on who runs them; failing, panicking, new.

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::params;

use crate::fleet::Fleet;
use crate::intent::Intent;
use crate::plan::Mix;
use crate::rows::View;
use crate::run::running_on;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS cells (
    id TEXT PRIMARY KEY, x INTEGER, y INTEGER, z INTEGER, audience_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS marks (
    id TEXT PRIMARY KEY, cell TEXT NOT NULL, note TEXT, done BOOLEAN, more JSON, audience_key TEXT NOT NULL)";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    id: String,
    audience: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Insert,
    SetX,
    /// Reads one cell, perhaps a private one, and writes another.
    Derive,
    Delete,
    /// A rule: only the first may.
    ClaimY,
    /// Touches whatever is visible where it runs.
    Sweep,
    /// Depends on the device that runs it.
    Impure,
    /// Writes two cells, perhaps of two audiences.
    Pair,
    InsertOrDelete,
    /// A row with an id of the action's own.
    Mark,
    /// Sets a column to NULL, and back: writes without a net effect.
    Blink,
    /// Deletes and inserts one row.
    Renew,
    /// Does nothing at all.
    Nothing,
    /// Panics where a cell is there.
    Panic,
}

const KINDS: [Kind; 14] = [
    Kind::Insert,
    Kind::SetX,
    Kind::Derive,
    Kind::Delete,
    Kind::ClaimY,
    Kind::Sweep,
    Kind::Impure,
    Kind::Pair,
    Kind::InsertOrDelete,
    Kind::Mark,
    Kind::Blink,
    Kind::Renew,
    Kind::Nothing,
    Kind::Panic,
];

#[derive(Debug, Serialize, Deserialize)]
struct Chaos {
    kind: Kind,
    a: Cell,
    b: Cell,
    v: i64,
}

/// The same, in an action that only newer versions of the app know.
#[derive(Debug, Serialize, Deserialize)]
struct NewChaos {
    chaos: Chaos,
}

fn insert(ctx: &mut Context<'_>, cell: &Cell, x: i64) -> Result<(), ActionError> {
    let row = [("id", (&cell.id).into()), ("x", x.into()), ("y", 0.into()), ("audience_key", (&cell.audience).into())];
    ctx.insert("cells", &row).map(drop)
}

fn set(ctx: &mut Context<'_>, cell: &Cell, column: &str, value: impl Into<Option<i64>>) -> Result<(), ActionError> {
    let sql = format!("UPDATE cells SET {column} = ? WHERE id = ?");
    ctx.execute(&sql, params![value.into(), &cell.id]).map(drop)
}

fn delete(ctx: &mut Context<'_>, cell: &Cell) -> Result<(), ActionError> {
    ctx.execute("DELETE FROM cells WHERE id = ?", params![&cell.id]).map(drop)
}

/// x and y of a cell, if it is there.
fn read(ctx: &mut Context<'_>, cell: &Cell) -> Result<Option<(i64, i64)>, ActionError> {
    let row = ctx.query_one("SELECT x, y FROM cells WHERE id = ?", params![&cell.id])?;
    row.map(|row| Ok((row.get::<Option<i64>>("x")?.unwrap_or(0), row.get::<Option<i64>>("y")?.unwrap_or(0))))
        .transpose()
}

fn mark(ctx: &mut Context<'_>, cell: &Cell, v: i64) -> Result<(), ActionError> {
    let note = format!("{v} at {}", ctx.timestamp_ms());
    let row = [
        ("cell", (&cell.id).into()),
        ("note", note.into()),
        ("done", (v % 2 == 0).into()),
        ("audience_key", (&cell.audience).into()),
    ];
    ctx.insert("marks", &row)?;
    ctx.execute("DELETE FROM marks WHERE cell = ? AND done AND note < ?", params![&cell.id, "3"]).map(drop)
}

impl Chaos {
    fn act(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let Self { kind, a, b, v } = self;
        match kind {
            Kind::Insert => insert(ctx, a, *v),
            Kind::SetX => set(ctx, a, "x", *v),
            Kind::Derive => {
                let x = read(ctx, b)?.map_or(-1, |(x, _)| x);
                set(ctx, a, "y", x + 1)
            }
            Kind::Delete => delete(ctx, a),
            Kind::ClaimY => match read(ctx, a)? {
                Some((_, 0)) => set(ctx, a, "y", v + 1),
                Some(_) | None => Err(ActionError::reject("not free")),
            },
            Kind::Sweep => ctx.execute("UPDATE cells SET z = ? WHERE x > 50", params![*v]).map(drop),
            Kind::Impure => {
                let device = i64::try_from(running_on()).expect("BUG: a small number");
                set(ctx, a, "x", device * 1_000 + v)
            }
            Kind::Pair => {
                set(ctx, a, "x", *v)?;
                match read(ctx, b)? {
                    Some(_) => set(ctx, b, "x", *v),
                    None => insert(ctx, b, *v),
                }
            }
            Kind::InsertOrDelete => match (read(ctx, a)?, read(ctx, b)?) {
                (None, _) => insert(ctx, a, *v),
                (Some(_), Some(_)) => delete(ctx, b),
                (Some(_), None) => Ok(()),
            },
            Kind::Mark => mark(ctx, a, *v),
            Kind::Blink => {
                let Some((x, _)) = read(ctx, a)? else { return Ok(()) };
                set(ctx, a, "x", None)?;
                set(ctx, a, "x", x)
            }
            Kind::Renew => {
                delete(ctx, a)?;
                insert(ctx, a, *v)
            }
            Kind::Nothing => Ok(()),
            Kind::Panic => match read(ctx, b)? {
                // Unwinds without the words that a real panic would print.
                Some((x, _)) if x > *v => std::panic::resume_unwind(Box::new("as planned")),
                _ => set(ctx, a, "z", *v),
            },
        }
    }
}

impl Action for Chaos {
    const TAG: &'static str = "chaos_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        self.act(ctx)
    }
}

impl Action for NewChaos {
    const TAG: &'static str = "chaos_v2";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        self.chaos.act(ctx)
    }
}

#[expect(clippy::unnecessary_wraps, reason = "a workload may draw nothing")]
fn draw(random: &mut StdRng, view: &View<'_>) -> Option<Intent> {
    let audiences: Vec<&str> = view.audiences.iter().map(|audience| audience.as_str()).collect();
    let mut cell = || {
        // Before the first session the app knows only what is the user's own.
        let audience = match audiences.len() {
            0 => "P",
            count => audiences[random.random_range(0..count)],
        };
        Cell { id: format!("{audience}:{}", random.random_range(0..4)), audience: audience.to_owned() }
    };
    let (a, b) = (cell(), cell());
    let chaos = Chaos { kind: KINDS[random.random_range(0..KINDS.len())], a, b, v: random.random_range(0..100) };
    Some(if random.random_bool(0.2) { Intent::of(&NewChaos { chaos }) } else { Intent::of(&chaos) })
}

pub(super) fn fleet(name: &str, mix: Mix) -> Fleet {
    Fleet::builder(name)
        .schema(SCHEMA)
        .table(Table::new("cells").given_ids())
        .table(Table::new("marks").identity(["cell"]))
        .action::<Chaos>()
        .action_since::<NewChaos>(2)
        .member("ann", ["P", "a"])
        .member("ben", ["P", "b"])
        .member("cat", ["P", "Q", "c"])
        .member("dan", ["Q", "d", "P"])
        .member("eve", ["P", "Q", "a"])
        .workload(draw)
        .mix(mix)
        .build()
}
