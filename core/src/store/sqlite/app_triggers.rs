//! The app's own triggers: rules of its actions, and keepers of its local tables.
//!
//! A trigger that writes tracked tables, or says RAISE, is a **rule**: part of what an action does. What it wrote travels with
//! the action's patch, and is undone, applied and loaded like the rest; what the server has accepted it does not judge
//! again. So it must fire while an action runs and at no other time, and gets a condition that says so, in the app's schema.
//! All others, such as those that keep a full-text index, follow every change of a row, whoever makes it.
//!
//! Which is which, SQLite says: it names the trigger behind each access of a statement that it prepares. So rules are found
//! also where one trigger sets off another.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::Connection;

use super::capture::{Capture, IN_ACTION, Touched};
use super::tables::TrackedTable;
use super::triggers::PREFIX;
use super::words::{says, with_condition};
use crate::action::quoted;
use crate::store::StoreError;

type Tracked = BTreeMap<String, Arc<TrackedTable>>;

/// A trigger as SQLite keeps it.
struct Trigger {
    name: String,
    table: String,
    definition: String,
}

/// Gives the app's rules the condition that an action runs, if they do not have it.
pub(super) fn keep_rules_to_actions(
    connection: &Connection,
    capture: &Capture,
    tables: &Tracked,
) -> Result<(), StoreError> {
    let persistent = triggers_in(connection, "sqlite_schema")?;
    let temporary = triggers_in(connection, "sqlite_temp_schema")?;
    if persistent.is_empty() && temporary.is_empty() {
        return Ok(());
    }
    let touched = set_off_by_writes(connection, capture, tables);
    if let Some(trigger) = temporary.into_iter().find(|trigger| is_rule(trigger, &touched, tables)) {
        let problem = "a TEMP trigger on it says RAISE or writes tracked tables: other connections would not have it";
        return Err(StoreError::Unsuitable { table: trigger.table, problem });
    }
    for trigger in persistent.iter().filter(|trigger| is_rule(trigger, &touched, tables)) {
        if says(&trigger.definition, &[IN_ACTION]) {
            continue;
        }
        let kept = with_condition(&trigger.definition, &format!("{IN_ACTION}()"))
            .ok_or(StoreError::Damaged { what: "a trigger's definition" })?;
        connection.execute_batch(&format!("DROP TRIGGER {};\n{kept}", quoted(&trigger.name)))?;
    }
    Ok(())
}

fn is_rule(trigger: &Trigger, touched: &Touched, tables: &Tracked) -> bool {
    touched.get(&trigger.name).is_some_and(|written| {
        written.iter().any(|table| tables.contains_key(table)) || says(&trigger.definition, &["RAISE", "("])
    })
}

/// The app's triggers, oldest first.
fn triggers_in(connection: &Connection, schema: &str) -> Result<Vec<Trigger>, StoreError> {
    let sql =
        format!("SELECT name, tbl_name, sql FROM {schema} WHERE type = 'trigger' AND name NOT GLOB ? ORDER BY rowid");
    let mut statement = connection.prepare(&sql)?;
    let found = statement.query_map([format!("{PREFIX}*")], |row| {
        Ok(Trigger { name: row.get(0)?, table: row.get(1)?, definition: row.get(2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// What triggers do when tracked tables are written. Nothing is written here.
fn set_off_by_writes(connection: &Connection, capture: &Capture, tables: &Tracked) -> Touched {
    capture.touched_by(|| {
        for table in tables.values() {
            let audience = (!table.audience_is_generated).then_some("audience_key");
            let columns = table.columns.keys().map(String::as_str).chain(["id"]).chain(audience);
            for write in writes(&table.name, columns) {
                // One that cannot be prepared cannot be run either, and says why when it is.
                drop(connection.prepare(&write));
            }
        }
    })
}

/// One statement of each kind, which every trigger of its kind would follow.
pub(super) fn writes<'c>(table: &str, columns: impl IntoIterator<Item = &'c str>) -> [String; 3] {
    let table = quoted(table);
    let same: Vec<String> = columns.into_iter().map(|column| format!("{0} = {0}", quoted(column))).collect();
    [
        format!("INSERT INTO {table} DEFAULT VALUES"),
        format!("UPDATE {table} SET {}", same.join(", ")),
        format!("DELETE FROM {table}"),
    ]
}
