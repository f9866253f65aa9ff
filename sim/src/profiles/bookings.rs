//! Rules of a theatre with accounts: no seat twice, no balance below zero, and the end is as if all had run in order.

use std::collections::BTreeMap;

use rand::Rng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::model::RecordBody;
use synchrotron_core::params;

use crate::check::AtRest;
use crate::fleet::{Fleet, FleetBuilder};
use crate::intent::Intent;
use crate::plan::Mix;
use crate::rows::{Rows, View};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS bookings (
    id TEXT PRIMARY KEY, seat TEXT NOT NULL, holder TEXT NOT NULL, audience_key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS accounts (
    id TEXT PRIMARY KEY, balance INTEGER NOT NULL, audience_key TEXT NOT NULL)";

const SEATS: u32 = 3;
const PRICE: i64 = 40;

/// What a customer does.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Deposit {
        holder: String,
        amount: i64,
    },
    /// Takes a free seat and pays for it.
    Book {
        seat: String,
        holder: String,
    },
    /// Gives a seat back, and gets the money back.
    Cancel {
        seat: String,
        holder: String,
    },
    Transfer {
        from: String,
        to: String,
        amount: i64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Booking {
    change: Change,
}

/// The same, in an action that only newer versions of the app know.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct NewBooking {
    change: Change,
}

fn pay(ctx: &mut Context<'_>, holder: &str, amount: i64) -> Result<(), ActionError> {
    let sql = "UPDATE accounts SET balance = balance - ?1 WHERE id = ?2 AND balance >= ?1";
    match ctx.execute(sql, params![amount, holder])? {
        0 => Err(ActionError::reject("not enough money")),
        _ => Ok(()),
    }
}

fn receive(ctx: &mut Context<'_>, holder: &str, amount: i64) -> Result<(), ActionError> {
    if ctx.execute("UPDATE accounts SET balance = balance + ? WHERE id = ?", params![amount, holder])? == 0 {
        ctx.insert("accounts", &[("id", holder.into()), ("balance", amount.into()), ("audience_key", "P".into())])?;
    }
    Ok(())
}

impl Action for Booking {
    const TAG: &'static str = "booking_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        match &self.change {
            Change::Deposit { holder, amount } => receive(ctx, holder, *amount),
            Change::Book { seat, holder } => {
                if ctx.query_one("SELECT id FROM bookings WHERE seat = ?", params![seat])?.is_some() {
                    return Err(ActionError::reject("the seat is taken"));
                }
                pay(ctx, holder, PRICE)?;
                let row = [("seat", seat.into()), ("holder", holder.into()), ("audience_key", "P".into())];
                ctx.insert("bookings", &row).map(drop)
            }
            Change::Cancel { seat, holder } => {
                if ctx.execute("DELETE FROM bookings WHERE seat = ? AND holder = ?", params![seat, holder])? == 0 {
                    return Err(ActionError::reject("not yours"));
                }
                receive(ctx, holder, PRICE)
            }
            Change::Transfer { from, to, amount } => {
                pay(ctx, from, *amount)?;
                receive(ctx, to, *amount)
            }
        }
    }
}

impl Action for NewBooking {
    const TAG: &'static str = "booking_v2";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        Booking { change: self.change.clone() }.run(ctx)
    }
}

/// The rules once more, on maps: what running everything in the one order comes to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Theatre {
    seats: BTreeMap<String, String>,
    balances: BTreeMap<String, i64>,
}

impl Theatre {
    fn pay(&mut self, holder: &str, amount: i64) -> bool {
        match self.balances.get_mut(holder) {
            Some(balance) if *balance >= amount => {
                *balance -= amount;
                true
            }
            _ => false,
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Deposit { holder, amount } => *self.balances.entry(holder).or_default() += amount,
            Change::Book { seat, holder } => {
                if !self.seats.contains_key(&seat) && self.pay(&holder, PRICE) {
                    self.seats.insert(seat, holder);
                }
            }
            Change::Cancel { seat, holder } => {
                if self.seats.get(&seat) == Some(&holder) {
                    self.seats.remove(&seat);
                    *self.balances.entry(holder).or_default() += PRICE;
                }
            }
            Change::Transfer { from, to, amount } => {
                if self.pay(&from, amount) {
                    *self.balances.entry(to).or_default() += amount;
                }
            }
        }
    }

    fn of_rows(rows: &Rows) -> Self {
        let seat = |row| {
            (Rows::text(row, "seat").unwrap_or("").to_owned(), Rows::text(row, "holder").unwrap_or("").to_owned())
        };
        Self {
            seats: rows.of("bookings").map(|(_, row)| seat(row)).collect(),
            balances: rows
                .of("accounts")
                .map(|(id, row)| (id.to_string(), Rows::integer(row, "balance").unwrap_or(i64::MIN)))
                .collect(),
        }
    }
}

fn as_if_in_order(rest: &AtRest<'_>) -> Result<(), String> {
    let mut expected = Theatre::default();
    for action in rest.actions() {
        if let RecordBody::Action { args, .. } = &action.body {
            let booking: Booking = rmp_serde::from_slice(args.as_bytes()).map_err(|error| error.to_string())?;
            expected.take(booking.change);
        }
    }
    let found = Theatre::of_rows(rest.rows());
    if found == expected { Ok(()) } else { Err(format!("{found:?}, in order it comes to {expected:?}")) }
}

fn no_seat_twice(rows: &Rows) -> Result<(), String> {
    let mut seats = BTreeMap::new();
    for (id, row) in rows.of("bookings") {
        let seat = Rows::text(row, "seat").unwrap_or("");
        if let Some(other) = seats.insert(seat, id) {
            return Err(format!("seat {seat} is booked by {other} and by {id}"));
        }
    }
    Ok(())
}

fn no_debts(rows: &Rows) -> Result<(), String> {
    match rows.of("accounts").find(|(_, row)| Rows::integer(row, "balance").is_none_or(|balance| balance < 0)) {
        Some((id, _)) => Err(format!("account {id} is below zero")),
        None => Ok(()),
    }
}

fn draw(random: &mut StdRng, view: &View<'_>) -> Option<Intent> {
    let mut someone = || format!("h{}", random.random_range(0..3));
    let (holder, other) = (someone(), someone());
    let seat = format!("s{}", random.random_range(0..SEATS));
    let change = match random.random_range(0..10) {
        0..=2 => Change::Deposit { holder, amount: random.random_range(10..60) },
        3..=6 => Change::Book { seat, holder },
        7 | 8 => {
            let (_, held) = view.rows.of("bookings").next()?;
            let text = |column| Rows::text(held, column).map(str::to_owned);
            Change::Cancel { seat: text("seat")?, holder: text("holder")? }
        }
        _ => Change::Transfer { from: holder, to: other, amount: random.random_range(1..50) },
    };
    Some(Intent::of(&Booking { change }))
}

/// Old versions of the app among new ones.
pub(super) fn versions(name: &str, mix: Mix) -> Fleet {
    let draw = |random: &mut StdRng, view: &View<'_>| {
        let intent = draw(random, view)?;
        let tag = if random.random_bool(0.3) { NewBooking::TAG.to_owned() } else { intent.tag };
        Some(Intent { tag, args: intent.args })
    };
    theatre(name, mix).action_since::<NewBooking>(2).workload(draw).build()
}

pub(super) fn fleet(name: &str, mix: Mix) -> Fleet {
    theatre(name, mix).workload(draw).build()
}

fn theatre(name: &str, mix: Mix) -> FleetBuilder {
    Fleet::builder(name)
        .schema(SCHEMA)
        .table(Table::new("bookings").identity(["seat"]))
        .table(Table::new("accounts").given_ids())
        .action::<Booking>()
        .member("ann", ["P"])
        .member("ben", ["P"])
        .member("cat", ["P", "c"])
        .member("dan", ["P"])
        .rule("no seat twice", no_seat_twice)
        .rule("no debts", no_debts)
        .at_rest("as if all had run in order", as_if_in_order)
        .mix(mix)
}
