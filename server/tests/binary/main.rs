//! The binary's commands, as an operator runs them: a process, its output and its exit code, over real services.
#![cfg(unix)]

mod check;
mod configuration;
mod database;
mod fresh;
mod history;
mod kills;
mod memory;
mod migrate;
mod nats;
mod nats_config;
mod privileges;
mod process;
mod serve;
mod spans;
mod status;
mod token;
mod trial;
