//! The async shell, pushed: live data for the app, readers beside a busy writer, a driver that nothing stops, and several
//! processes on one database file; work and rows that have to wait.

mod bridge;
mod busy;
mod driver;
mod held;
mod live;
mod migrations;
mod pages;
mod processes;
mod readers;
mod recovery;
mod scripted;
mod snapshots;
mod support;
mod traces;
