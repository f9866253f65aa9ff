//! The app that is measured end to end: items, each of an audience.

use std::path::Path;

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Change, Client, ClientBuilder};
use synchrotron_core::model::{RowId, TableName};
use synchrotron_core::params;
use uuid::Uuid;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, title TEXT NOT NULL, count INTEGER NOT NULL, audience_key TEXT NOT NULL)";
const TABLE: &str = "items";

/// Adds an item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct AddItem {
    pub(super) id: String,
    pub(super) title: String,
    pub(super) audience: String,
}

impl AddItem {
    /// Another item of this audience.
    pub(super) fn to(audience: &str) -> Self {
        let id = Uuid::now_v7().to_string();
        Self { title: format!("item {id}"), id, audience: audience.to_owned() }
    }

    pub(super) fn row_id(&self) -> RowId {
        RowId::new(&self.id).expect("BUG: a UUID's text is a row id")
    }
}

impl Action for AddItem {
    const TAG: &'static str = "add_item_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let sql = "INSERT INTO items (id, title, count, audience_key) VALUES (?, ?, 1, ?)";
        ctx.execute(sql, params![&self.id, &self.title, &self.audience]).map(drop)
    }
}

pub(super) fn table() -> TableName {
    TableName::new(TABLE).expect("BUG: it is not empty")
}

/// The app on a device, as any app would set it up.
pub(super) fn app(database: &Path, user: &str) -> ClientBuilder {
    Client::builder()
        .database(database)
        .user(user)
        .schema(SCHEMA)
        .table(Table::new(TABLE).given_ids())
        .action::<AddItem>()
}

/// Whether a commit brought this row.
pub(super) fn brings(change: &Change, row: &RowId) -> bool {
    match change {
        Change::Committed(committed) => committed.rows.iter().any(|key| key.row_id == *row),
        Change::Elsewhere => false,
    }
}
