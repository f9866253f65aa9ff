//! HTTP over real sockets and a real Postgres: what a network owes a device, and what comes in that should not.

mod api;
mod bad_input;
mod conformance;
mod issuer;
mod jwks;
mod lifecycle;
mod tokens;
mod watched;
