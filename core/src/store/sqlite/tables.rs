//! What SQLite's catalogue says of the tracked tables.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension};

use super::codec::Reading;
use super::words::says;
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
        if !is_compared_bytewise(connection, name, "id")? || !is_compared_bytewise(connection, name, "audience_key")? {
            return Err(unsuitable(
                "its columns `id` and `audience_key` are compared byte by byte everywhere: give them no collation but BINARY",
            ));
        }
        refuse_rollbacks(connection, name)?;
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

/// Whether the database has foreign keys; refuses those of tracked tables, and to them, that hold only at a commit: it
/// would fail for what an action did, and every one after it. In time, an action fails on its own.
pub(super) fn has_foreign_keys(connection: &Connection, tables: &[Table]) -> Result<bool, StoreError> {
    let mut statement = connection.prepare(
        "SELECT t.name, f.\"table\", t.sql FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) AS f \
         WHERE t.type = 'table'",
    )?;
    let mut keys = statement.query([])?;
    let mut has = false;
    while let Some(key) = keys.next()? {
        has = true;
        let (child, parent, definition): (String, String, String) = (key.get(0)?, key.get(1)?, key.get(2)?);
        let tracked = |end: &String| tables.iter().find(|table| table.name().eq_ignore_ascii_case(end));
        let table = tracked(&child).or_else(|| tracked(&parent));
        if let Some(table) = table.filter(|_| says(&definition, &["INITIALLY", "DEFERRED"])) {
            let problem = "a foreign key of it, or to it, is INITIALLY DEFERRED and would be checked at the commit, which \
                           is too late: say INITIALLY IMMEDIATE, and write parents before children";
            return Err(StoreError::Unsuitable { table: table.name().to_owned(), problem });
        }
    }
    Ok(has)
}

/// A table, or a trigger on it, that may end the transaction beneath an action.
fn refuse_rollbacks(connection: &Connection, table: &str) -> Result<(), StoreError> {
    let mut statement =
        connection.prepare("SELECT sql FROM sqlite_schema WHERE tbl_name = ? COLLATE NOCASE AND sql IS NOT NULL")?;
    let definitions = statement.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    if definitions.iter().any(|sql| says(sql, &["ROLLBACK"])) {
        let problem = "it, or a trigger on it, says ROLLBACK, which would end more than the action: say ABORT";
        return Err(StoreError::Unsuitable { table: table.to_owned(), problem });
    }
    Ok(())
}

/// Whether the column's collation tells apart what SQLite's other ones do not: case, and spaces at the end. The first part
/// of a compound query gives its column the collation.
fn is_compared_bytewise(connection: &Connection, table: &str, column: &str) -> Result<bool, StoreError> {
    let sql = format!(
        "SELECT NOT EXISTS (SELECT 1 FROM (SELECT {} AS c FROM {} WHERE FALSE UNION ALL SELECT 'a') \
         WHERE c IN ('A', 'a '))",
        quoted(column),
        quoted(table)
    );
    Ok(connection.query_row(&sql, [], |row| row.get(0))?)
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
