//! The server's core against a real Postgres: what it takes, what it refuses, and what is in the tables afterwards.

mod clients;
mod compaction;
mod compaction_model;
mod fetch;
mod fixture;
mod forged;
mod forms;
mod gate;
mod identity;
mod late;
mod model;
mod once;
mod outage;
mod resync;
mod rows;
mod snapshot;
mod start;
mod visibility;
