//! Where and how to open a database, and what a power cut may take of it.

use std::path::PathBuf;
use std::time::Duration;

use crate::action::Table;
use crate::model::{ClientId, UserId};

/// How much of the newest work a power cut may take. A crash of the process never takes any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// What `execute` returned survives a power cut: every commit is synced to disk, but those of what others did while
    /// nothing is pending. The server has these, and gives them again.
    #[default]
    Full,
    /// Faster; a power cut may take the newest commits, never the database's integrity.
    Normal,
}

/// Where and how to open the database.
#[derive(Debug, Clone)]
pub struct SqliteSettings {
    /// The database file; made if absent.
    pub path: PathBuf,
    /// The app's own schema, safe to run at every start (`CREATE TABLE IF NOT EXISTS …`).
    pub schema: String,
    /// The tables to sync.
    pub tables: Vec<Table>,
    /// Whose data it is.
    pub user_id: UserId,
    /// The device's id, if the database is new.
    pub new_client_id: ClientId,
    /// What a power cut may take.
    pub durability: Durability,
    /// How long a write waits for another process's.
    pub busy_timeout: Duration,
}
