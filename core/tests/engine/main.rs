//! The engine on real SQLite files: capture, execute, identity, guards, integrate.

mod apply_items;
mod capture;
mod capture_items;
mod constraints;
mod correction_order;
mod drift;
mod execute;
mod execution_items;
mod guard;
mod identity_items;
mod integrate;
mod moves;
mod pages;
mod purity;
mod recovery;
mod rules;
mod support;
mod traces;
mod triggers;
mod upcast;
mod versions;
