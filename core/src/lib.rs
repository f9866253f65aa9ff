//! Offline-first sync for Postgres: the part that runs on every device.

#[cfg(feature = "engine")]
pub mod action;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "engine")]
pub mod engine;
pub mod model;
pub mod network;
pub mod patch;
#[cfg(feature = "engine")]
pub mod store;
pub mod wire;
