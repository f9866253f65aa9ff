//! The behaviours that `docs/scenarios.md` lists, each as a named test that reads like a story.
//!
//! A test's name begins with its item. Devices are real engines on real SQLite files; the server is the in-memory one,
//! which keeps the contract of the Postgres server. Where the design decides otherwise than the system before this one,
//! the test pins the design and its comment says so.

mod actions;
mod bootstrap;
mod conflicts;
mod corrections;
mod device;
mod fast_forward;
mod fleet;
mod head_gate;
mod hlc;
mod ingest;
mod late;
mod membership;
mod moves;
mod private;
mod quarantine;
mod reading;
mod reconcile;
mod resync;
mod run;
mod upload;
mod wild;
