//! Offline-first sync for Postgres: the part that runs on every device.

pub mod model;
pub mod network;
pub mod patch;
pub mod wire;
