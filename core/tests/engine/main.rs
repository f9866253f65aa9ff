//! The engine on real SQLite files: capture, execute, identity, guards.

mod capture;
mod execute;
mod guard;
mod support;
