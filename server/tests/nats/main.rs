//! Both ends over a real nats-server and a real Postgres: what a network owes a device, what comes in that should not,
//! and everything that can happen to NATS meanwhile.

mod attacks;
mod bad_input;
mod conformance;
mod encrypted;
mod leak;
mod limits;
mod live;
mod membership;
mod outage;
mod snapshot;
mod sql_writes;
mod stack;
mod tokens;
