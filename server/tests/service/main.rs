//! The server's core against a real Postgres: what it takes, what it refuses, and what is in the tables afterwards.

mod app;
mod bootstrap;
mod clients;
mod collation;
mod compaction;
mod compaction_model;
mod differential;
mod fetch;
mod fixture;
mod forged;
mod forms;
mod gate;
mod group;
mod identity;
mod late;
mod model;
mod once;
mod outage;
mod replica;
mod resync;
mod rows;
mod snapshot;
mod sql_writes;
mod start;
mod types;
mod visibility;
