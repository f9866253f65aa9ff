//! The Synchrotron server: ingest under Row Level Security, materialize, publish, fetch, snapshots.
//!
//! Place in the journey: between devices and Postgres, which is the source of truth. A process of it is stateless; any
//! number may run beside one database. [`Service`](service::Service) is the whole core; the transports in [`api`] decode,
//! call one function of it, and encode.

pub mod api;
pub mod auth;
mod clock;
pub mod compaction;
pub mod epoch;
mod fetch;
mod ingest;
mod materialize;
mod outbox;
mod pg;
#[cfg(test)]
mod plans;
mod read;
pub mod service;
pub mod settings;
mod snapshot;
mod start;
mod tasks;

pub use start::StartError;
pub use tasks::{RunningServer, Server, ServerError, ServerSettings, ServerTask};
