//! Failover: the conformance suite over two carriers to one server, which of them carries, what both push, and days on
//! which they come and go.

mod choice;
mod conformance;
mod days;
mod events;
mod faulty;
mod scene;
