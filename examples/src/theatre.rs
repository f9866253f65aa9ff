//! The app: a theatre whose seats are booked, online or not, and private notes. All its rules are in its actions.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{ClientBuilder, Timing};
use synchrotron_core::params;
use synchrotron_core::store::Durability;

/// The audience of the theatre's members.
pub const PROJECT: &str = "project:theatre";

/// The app's tables in Postgres.
pub const POSTGRES_SCHEMA: &str = include_str!("theatre.sql");

/// The app's tables on a device.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS seats (
        id TEXT PRIMARY KEY, label TEXT NOT NULL, holder TEXT, audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS notes (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, body TEXT NOT NULL,
        audience_key TEXT GENERATED ALWAYS AS ('user:' || owner) STORED
    );";

/// Puts seats up for booking.
#[derive(Debug, Serialize, Deserialize)]
pub struct OpenSeats {
    /// The seats' labels, such as `A1`.
    pub labels: Vec<String>,
}

impl Action for OpenSeats {
    const TAG: &'static str = "open_seats_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        for label in &self.labels {
            ctx.insert("seats", &[("label", label.into()), ("audience_key", PROJECT.into())])?;
        }
        Ok(())
    }
}

/// Books a free seat for whoever executes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct BookSeat {
    /// The seat's label.
    pub label: String,
}

impl Action for BookSeat {
    const TAG: &'static str = "book_seat_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let seat = ctx
            .query_one("SELECT holder FROM seats WHERE label = ?", params![&self.label])?
            .ok_or_else(|| ActionError::reject(format!("there is no seat {}", self.label)))?;
        if let Some(holder) = seat.get::<Option<String>>("holder")? {
            return Err(ActionError::reject(format!("seat {} is taken by {holder}", self.label)));
        }
        let holder = ctx.user_id().to_string();
        ctx.execute("UPDATE seats SET holder = ? WHERE label = ?", params![holder, &self.label])?;
        Ok(())
    }
}

/// Writes a note that only its author sees.
#[derive(Debug, Serialize, Deserialize)]
pub struct WriteNote {
    /// The note's text.
    pub body: String,
}

impl Action for WriteNote {
    const TAG: &'static str = "write_note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let owner = ctx.user_id().to_string();
        ctx.insert("notes", &[("owner", owner.into()), ("body", (&self.body).into())])?;
        Ok(())
    }
}

/// The app's whole set-up on a device.
#[must_use]
pub fn app(database: &std::path::Path, user: &str) -> ClientBuilder {
    synchrotron_core::client::Client::builder()
        .database(database)
        .user(user)
        .schema(SCHEMA)
        .table(Table::new("seats").identity(["label"]))
        .table(Table::new("notes").identity(["owner", "body"]))
        .action::<OpenSeats>()
        .action::<BookSeat>()
        .action::<WriteNote>()
        .durability(Durability::Full)
        .timing(Timing { poll: std::time::Duration::from_millis(100), ..Timing::default() })
}
