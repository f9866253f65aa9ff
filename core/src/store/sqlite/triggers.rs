//! The triggers that capture is made of, four on each tracked table, written into the app's schema.
//!
//! SQLite fires the newest trigger of a table first. Capture must be before what the app's own triggers do after a write,
//! so that effects are in the order in which they happen: it is made anew when the app has made a newer one.

use rusqlite::{Connection, OptionalExtension};

use super::tables::TrackedTable;
use crate::action::quoted;
use crate::store::StoreError;

/// What the names of capture triggers begin with.
pub(super) const PREFIX: &str = "synchrotron_";

/// Installs the triggers of one table that are not there, not as its columns ask for, or older than one of the app's.
pub(super) fn install(connection: &Connection, table: &TrackedTable) -> Result<(), StoreError> {
    for (name, sql) in triggers(table) {
        let found: Option<String> = connection
            .query_row(
                "SELECT sql FROM sqlite_schema AS ours WHERE type = 'trigger' AND name = ?1 AND NOT EXISTS \
                 (SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?2 COLLATE NOCASE \
                 AND name NOT GLOB 'synchrotron_*' AND rowid > ours.rowid)",
                [&name, &table.name],
                |row| row.get(0),
            )
            .optional()?;
        if found.as_ref() != Some(&sql) {
            connection.execute_batch(&format!("DROP TRIGGER IF EXISTS {};\n{sql}", quoted(&name)))?;
        }
    }
    Ok(())
}

/// The triggers of one table, by name.
fn triggers(table: &TrackedTable) -> [(String, String); 4] {
    let on = quoted(&table.name);
    let text = format!("'{}'", table.name.replace('\'', "''"));
    let values =
        |row: &str| -> String { table.columns.keys().map(|column| format!(", {row}.{}", quoted(column))).collect() };
    let differs: Vec<String> = table
        .columns
        .keys()
        .map(|column| {
            let (old, new) = (format!("OLD.{}", quoted(column)), format!("NEW.{}", quoted(column)));
            // The column's own collation may call equal what is not.
            format!("{old} IS NOT {new} COLLATE BINARY OR typeof({old}) <> typeof({new})")
        })
        .collect();
    let differs = if differs.is_empty() { "FALSE".to_owned() } else { differs.join(" OR ") };
    let moved = "OLD.\"id\" IS NOT NEW.\"id\" COLLATE BINARY \
                 OR OLD.\"audience_key\" IS NOT NEW.\"audience_key\" COLLATE BINARY";
    let capture = |operation: &str, row: &str, values: &str| {
        format!(
            "INSERT INTO local_undo (action_id, table_name, row_id, audience_key, operation, image) VALUES \
             (synchrotron_action(), {text}, {row}.\"id\", {row}.\"audience_key\", '{operation}', \
             synchrotron_image({text}, '{operation}'{values}));"
        )
    };
    let trigger = |suffix: &str, event: &str, when: &str, body: &str| {
        let name = format!("synchrotron_{suffix}_{}", table.name);
        let sql = format!("CREATE TRIGGER {} AFTER {event} ON {on} WHEN {when} BEGIN {body} END", quoted(&name));
        (name, sql)
    };
    let both = format!("{}{}", values("OLD"), values("NEW"));
    [
        trigger("insert", "INSERT", "synchrotron_capturing()", &capture("INSERT", "NEW", &values("NEW"))),
        trigger(
            "update",
            "UPDATE",
            &format!("synchrotron_capturing() AND ({differs})"),
            &capture("UPDATE", "NEW", &both),
        ),
        trigger("delete", "DELETE", "synchrotron_capturing()", &capture("DELETE", "OLD", &values("OLD"))),
        trigger(
            "move",
            "UPDATE",
            moved,
            "SELECT RAISE(ABORT, 'synchrotron: id and audience_key never change: delete the row and insert another');",
        ),
    ]
}
