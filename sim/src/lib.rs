//! A whole fleet in one deterministic process: many devices, one server, a hostile network, and an app's own actions.
//!
//! The devices are real: [`synchrotron_core::engine::Engine`] on real SQLite files. The server is the in-memory one that
//! keeps the contract of the Postgres server. Between them lies a network that loses, doubles, delays and reorders what
//! it carries. Processes die between any two steps and inside them, disks fail, clocks jump, tokens expire, memberships
//! come and go, and old versions of the app meet new ones.
//!
//! A seed makes a [`Plan`]: steps as plain data. Running it writes an event log; one plan twice writes it twice, byte for
//! byte. After every step and at rest, the fleet is held to the promises of the system. What breaks one is shrunk to a
//! short plan that can be kept and run again.
//!
//! | module | its part |
//! |---|---|
//! | [`Fleet`] | what is simulated: an app's schema, actions, users, workload and rules |
//! | [`Plan`], [`Step`] | what happens, as data; made from a seed by a [`Mix`] of faults |
//! | `run` | does the steps: devices, messages under way, faults |
//! | `check` | the promises, against a plain fold of the server's log that shares no code with the engine |
//! | `shrink` | makes a failing plan short |
//! | [`profiles`] | the fleets that this project runs itself |
//!
//! # An app's own actions
//!
//! ```
//! use rand::Rng;
//! use serde::{Deserialize, Serialize};
//! use synchrotron_core::action::{Action, ActionError, Context, Table};
//! use synchrotron_core::params;
//! use synchrotron_sim::{Fleet, Intent};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Count { by: i64 }
//!
//! impl Action for Count {
//!     const TAG: &'static str = "count_v1";
//!     type Output = ();
//!     fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
//!         if ctx.execute("UPDATE counters SET n = n + ? WHERE id = 'visits'", params![self.by])? == 0 {
//!             ctx.insert("counters", &[("id", "visits".into()), ("n", self.by.into()), ("audience_key", "team".into())])?;
//!         }
//!         Ok(())
//!     }
//! }
//!
//! let fleet = Fleet::builder("counting")
//!     .schema("CREATE TABLE IF NOT EXISTS counters (id TEXT PRIMARY KEY, n INTEGER, audience_key TEXT NOT NULL)")
//!     .table(Table::new("counters").given_ids())
//!     .action::<Count>()
//!     .member("alice", ["team"])
//!     .member("bob", ["team"])
//!     .workload(|random, _view| Some(Intent::of(&Count { by: random.random_range(1..9) })))
//!     .build();
//! fleet.check(0..3);
//! ```

mod check;
mod failure;
mod fleet;
mod intent;
mod log;
mod plan;
pub mod profiles;
mod rows;
mod run;
mod seeds;
mod shrink;

pub use check::AtRest;
pub use failure::{Failure, FailureKind};
pub use fleet::{Fleet, FleetBuilder};
pub use intent::Intent;
pub use plan::{Birth, Mix, Plan, PlanError, Step};
pub use rows::{Rows, View};
pub use run::{Run, running_on};
pub use seeds::{Broken, Tally};
pub use shrink::Shrunk;
