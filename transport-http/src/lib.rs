//! Synchrotron over HTTP: the carrier to fall back on where NATS does not get through.
//!
//! Place in the journey: beneath [`synchrotron_core::network::Network`]. Messages are those of every carrier, one per body,
//! as MessagePack or JSON. The server says by events where there is something to fetch; where a proxy holds streams back,
//! long polls say it, and where nothing does, the client asks every now and then.
//!
//! # Invariants
//! - An answer is read up to a bound and no further, whatever length it declares.
//! - Every call ends in time; whatever ends it early leaves an upload's outcome unknown.
//! - The token is sent to the configured server only: redirects are not followed.
//! - Whoever is told when to come back does not come sooner.
//!
//! # Features
//! `client` (default): [`HttpNetwork`]. `tls`: `https://`. Without both, only [`routes`] and [`media`], which the server
//! shares.

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod events;
#[cfg(feature = "client")]
mod link;
pub mod media;
#[cfg(feature = "client")]
mod remembered;
#[cfg(feature = "client")]
mod retry_after;
pub mod routes;
#[cfg(feature = "client")]
mod settings;
#[cfg(feature = "client")]
mod tokens;

#[cfg(feature = "client")]
pub use client::HttpNetwork;
#[cfg(feature = "client")]
pub use events::sse;
#[cfg(feature = "client")]
pub use settings::{HttpSettings, SetupError};
