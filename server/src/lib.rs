//! The Synchrotron server: ingest under Row Level Security, materialize, publish, fetch, snapshots.
//!
//! Place in the journey: between devices and Postgres, which is the source of truth. A process of it is stateless; any
//! number may run beside one database. [`Service`](service::Service) is the whole core; the transports in [`api`] decode,
//! call one function of it, and encode.

pub mod api;
mod audiences;
pub mod auth;
mod capture;
pub mod check;
mod clock;
pub mod compaction;
pub mod config;
mod crypto;
pub mod epoch;
mod fetch;
#[cfg(test)]
mod fixture;
mod ingest;
mod lease;
mod likeness;
mod limits;
mod materialize;
mod metrics;
mod observe;
mod outbox;
mod pg;
#[cfg(test)]
mod plans;
mod read;
pub mod schema;
pub mod service;
pub mod settings;
mod slices;
mod snapshot;
mod start;
pub mod status;
mod tasks;
pub mod telemetry;
mod trouble;
mod wakeups;

pub use start::StartError;
pub use tasks::{RunningServer, Server, ServerError, ServerSettings, ServerTask};
