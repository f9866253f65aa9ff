//! Synchrotron over NATS JetStream: the live carrier.
//!
//! Place in the journey: beneath [`synchrotron_core::network::Network`]. A request is answered on an inbox of its own;
//! an upload goes into a stream and its outcome comes back on the device's outcome subject; slices arrive live. The
//! server's side of the same subjects is in the package `synchrotron-server`.
//!
//! # Invariants
//! - Every subject is built from typed ids by [`subjects`], never from raw text.
//! - JetStream's acknowledgement is never taken for an outcome: only a message of the server is.
//! - Every call ends in time, and at once when the connection is or gets lost; whatever ends it early leaves an upload's
//!   outcome unknown.
//! - A client uses no JetStream API, and may do only what [`subjects::Rights`] of its user name: NATS enforces it, by what
//!   the server answers when NATS asks it about a token.
//!
//! # Not here
//! Falling back to another carrier (`Failover` of core); seeing gaps between slices (the client's
//! driver, by their `prev`).
//!
//! Tests: laws of subjects beside them; everything else over a real nats-server in the server's `tests/nats/`.

mod client;
pub mod control;
mod downlink;
pub mod link;
mod renewal;
mod rpc;
mod settings;
pub mod subjects;
mod uplink;

pub use client::NatsNetwork;
pub use settings::{NatsSettings, Servers, SettingsError, Tls};
