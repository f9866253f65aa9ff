//! The engine on real SQLite files: capture, execute, identity, guards, integrate.

mod capture;
mod execute;
mod guard;
mod integrate;
mod purity;
mod recovery;
mod support;
mod upcast;
mod versions;
