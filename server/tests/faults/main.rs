//! Everything that can happen to NATS and to the servers on it, with real devices that write meanwhile: nothing is lost,
//! nothing is doubled, and everyone is live again by themselves.
//!
//! Random ones print their seed and the command that runs them again. Where nats-server is not ours to kill (`NATS_URL`,
//! containers) these tests do nothing.

mod cluster;
mod disorder;
mod line;
mod partitions;
mod readers;
mod republish;
mod store;
mod streams;
mod world;
