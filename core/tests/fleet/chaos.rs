//! Actions of every bad kind: conditional on private rows, on what is visible, on who runs them.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context};
use synchrotron_core::model::{Epoch, Value};
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::params;
use uuid::Uuid;

use crate::device::{Device, RUNNING_ON, SERVER_NOW, check_promises, settle};
use crate::for_each_seed;

pub(crate) const VIEWS: [&[&str]; 5] = [&["P", "a"], &["P", "b"], &["P", "Q", "c"], &["Q", "d"], &["P", "Q", "a"]];
const STEPS: i64 = 60;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Cell {
    id: String,
    audience: String,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
}

const KINDS: [Kind; 9] = [
    Kind::Insert,
    Kind::SetX,
    Kind::Derive,
    Kind::Delete,
    Kind::ClaimY,
    Kind::Sweep,
    Kind::Impure,
    Kind::Pair,
    Kind::InsertOrDelete,
];

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Chaos {
    kind: Kind,
    a: Cell,
    b: Cell,
    v: i64,
}

fn insert(ctx: &mut Context<'_>, cell: &Cell, x: i64) -> Result<(), ActionError> {
    let row = [("id", (&cell.id).into()), ("x", x.into()), ("y", 0.into()), ("audience_key", (&cell.audience).into())];
    ctx.insert("cells", &row).map(drop)
}

fn set(ctx: &mut Context<'_>, cell: &Cell, column: &str, value: i64) -> Result<(), ActionError> {
    let sql = format!("UPDATE cells SET {column} = ? WHERE id = ?");
    ctx.execute(&sql, params![value, &cell.id]).map(drop)
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

impl Action for Chaos {
    const TAG: &'static str = "chaos_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
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
            Kind::Impure => set(ctx, a, "x", i64::from(RUNNING_ON.get()) * 1_000 + v),
            Kind::Pair => {
                set(ctx, a, "x", *v)?;
                match read(ctx, b)? {
                    Some(_) => set(ctx, b, "x", *v),
                    None => insert(ctx, b, *v),
                }
            }
            Kind::InsertOrDelete => {
                if read(ctx, a)?.is_none() {
                    insert(ctx, a, *v)
                } else if read(ctx, b)?.is_some() {
                    delete(ctx, b)
                } else {
                    Ok(())
                }
            }
        }
    }
}

pub(crate) fn arbitrary(random: &mut StdRng, audiences: &[&str]) -> Chaos {
    let mut cell = || {
        let audience = audiences[random.random_range(0..audiences.len())];
        Cell { id: format!("{audience}:{}", random.random_range(0..4)), audience: audience.to_owned() }
    };
    let (a, b) = (cell(), cell());
    Chaos { kind: KINDS[random.random_range(0..KINDS.len())], a, b, v: random.random_range(0..100) }
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    let fleet = random.random_range(2..=VIEWS.len());
    let mut devices: Vec<Device> = (0..fleet)
        .map(|number| {
            let skew_ms = [0, 0, -500, 300][random.random_range(0..4)];
            let number_u32 = u32::try_from(number).expect("a small fleet");
            Device::new::<Chaos>(&server, number_u32, VIEWS[number], skew_ms)
        })
        .collect();
    for time in 0..STEPS {
        let acting = random.random_range(0..fleet);
        if random.random_bool(0.6) {
            let action = arbitrary(&mut random, &devices[acting].audiences);
            devices[acting].execute(time, &action);
        }
        if random.random_bool(0.35) {
            devices[random.random_range(0..fleet)].sync();
        }
    }
    settle(&mut devices, &server);
    check_promises(&mut devices, &server);
}

#[test]
fn impure_and_partly_visible_actions_still_converge() {
    for_each_seed(0..40, "impure", run);
}

/// The awkward value on purpose: a NULL column reads as none, and is not lost on the way.
#[test]
fn nulls_converge_too() {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    let mut devices = [0, 1].map(|number| Device::new::<Chaos>(&server, number, &["P"], 0));
    let cell = Cell { id: "P:0".into(), audience: "P".into() };
    let action = Chaos { kind: Kind::Insert, a: cell.clone(), b: cell, v: 7 };
    assert!(devices[0].execute(0, &action));
    settle(&mut devices, &server);
    check_promises(&mut devices, &server);
    let rows = devices[1].rows();
    assert_eq!(rows.values().next().map(|columns| columns["z"].clone()), Some(Value::Null));
}
