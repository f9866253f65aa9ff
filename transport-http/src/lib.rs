//! Synchrotron over HTTP: the carrier to fall back on where NATS does not get through.
//!
//! Place in the journey: beneath [`synchrotron_core::network::Network`]. Messages are those of every carrier, one
//! MessagePack envelope per body; there is no push, so a client on HTTP polls.
//!
//! # Invariants
//! - An answer is read up to a bound and no further, whatever length it declares.
//! - Every call ends in time; whatever ends it early leaves an upload's outcome unknown.
//! - The token is sent to the configured server only: redirects are not followed.
//!
//! # Features
//! `client` (default): [`HttpNetwork`]. `tls`: `https://`. Without both, only [`routes`], which the server shares.

#[cfg(feature = "client")]
mod client;
pub mod routes;
#[cfg(feature = "client")]
mod settings;
#[cfg(feature = "client")]
mod tokens;

#[cfg(feature = "client")]
pub use client::HttpNetwork;
#[cfg(feature = "client")]
pub use settings::{HttpSettings, SetupError};
