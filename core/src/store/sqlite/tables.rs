//! What SQLite's catalogue says of the tracked tables.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::codec::Reading;
use crate::action::{Table, quoted};
use crate::store::StoreError;

/// A tracked table as it is in this database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TrackedTable {
    pub(super) name: String,
    /// The columns that travel: all but `id`, `audience_key` and generated ones.
    pub(super) columns: BTreeMap<String, Reading>,
    /// Whether `audience_key` is computed by the table itself.
    pub(super) audience_is_generated: bool,
}

impl TrackedTable {
    /// Reads the table's shape and checks that it can be synced.
    pub(super) fn read(connection: &Connection, table: &Table) -> Result<Self, StoreError> {
        let name = table.name();
        let unsuitable = |problem| StoreError::Unsuitable { table: name.to_owned(), problem };
        if table.row_identity().is_none() {
            return Err(unsuitable("say where its row ids come from: `identity([..columns])` or `given_ids()`"));
        }
        let exists = connection
            .query_row("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?", [name], |_| Ok(()))
            .optional()?;
        if exists.is_none() {
            return Err(unsuitable("no such table: create it in the app's schema"));
        }
        let columns = catalogue(connection, name)?;
        let key: Vec<_> = columns.iter().filter(|column| column.in_primary_key).collect();
        if !matches!(key[..], [column] if column.name == "id" && column.is_text() && !column.generated) {
            return Err(unsuitable("its primary key must be a column `id` of type TEXT"));
        }
        let audience = columns
            .iter()
            .find(|column| column.name == "audience_key")
            .ok_or_else(|| unsuitable("it needs a column `audience_key`, plain or generated"))?;
        if !audience.is_text() {
            return Err(unsuitable("its column `audience_key` must be of type TEXT"));
        }
        let travels = |column: &&Column| column.name != "id" && column.name != "audience_key" && !column.generated;
        Ok(Self {
            name: name.to_owned(),
            audience_is_generated: audience.generated,
            columns: columns
                .iter()
                .filter(travels)
                .map(|column| (column.name.clone(), Reading::of_declared_type(Some(&column.declared_type))))
                .collect(),
        })
    }
}

struct Column {
    name: String,
    declared_type: String,
    in_primary_key: bool,
    generated: bool,
}

impl Column {
    fn is_text(&self) -> bool {
        let declared = self.declared_type.to_ascii_uppercase();
        ["TEXT", "UUID", "CHAR"].iter().any(|kind| declared.contains(kind))
    }
}

fn catalogue(connection: &Connection, table: &str) -> Result<Vec<Column>, StoreError> {
    let mut statement = connection.prepare(&format!("PRAGMA table_xinfo({})", quoted(table)))?;
    let columns = statement.query_map([], |row| {
        // `hidden` is 2 for virtual and 3 for stored generated columns.
        Ok(Column {
            name: row.get("name")?,
            declared_type: row.get("type")?,
            in_primary_key: row.get::<_, i64>("pk")? > 0,
            generated: row.get::<_, i64>("hidden")? > 1,
        })
    })?;
    Ok(columns.collect::<Result<_, _>>()?)
}
