//! HTTP over real sockets and a real Postgres: what a network owes a device, and what comes in that should not.

mod api;
mod bad_input;
mod browsers;
mod conformance;
mod devices;
mod document;
mod forms;
mod issuer;
mod jwks;
mod lifecycle;
mod limits;
mod listening;
mod slow_readers;
mod snapshots;
mod tokens;
mod watched;
