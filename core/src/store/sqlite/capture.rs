//! Capture: triggers on tracked tables that write what a statement did into `local_undo`.
//!
//! The triggers are persistent and call functions that only this library's connections have, so a write by any other
//! program fails. On our own connection they refuse unless an action runs (or history is being rewound). What they
//! write is part of the transaction: a savepoint that is rolled back takes its captured effects along.
//!
//! `recursive_triggers` is on, so the row that `INSERT OR REPLACE` removes is captured too; so are cascades. An
//! authorizer keeps actions from the sync tables, from tables that are not captured, and from schema and transactions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Error, OptionalExtension};

use super::codec::{Image, Reading, pack};
use super::tables::TrackedTable;
use super::words::has_word;
use crate::action::{Table, quoted};
use crate::model::{ActionId, Columns, Effect, Operation};
use crate::store::StoreError;

/// The functions that capture triggers call, with their numbers of arguments.
pub(super) const FUNCTIONS: [(&str, i32); 3] =
    [("synchrotron_capturing", 0), ("synchrotron_action", 0), ("synchrotron_image", -1)];

/// What writes to tracked tables mean at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are refused.
    Closed,
    /// They are effects of this action.
    Action(ActionId),
    /// They are effects of this action, made by the engine: nothing keeps it from its own tables.
    Patch(ActionId),
    /// They undo effects, and are not effects themselves.
    Rewind,
}

/// The table of rows that are kept aside. Changes to it are captured and undone like those of tracked tables.
pub(super) const DISPLACED: &str = "local_displaced_rows";

fn displaced_rows() -> TrackedTable {
    let columns = ["columns", "row_id", "table_name"].map(|column| (column.to_owned(), Reading::Stored));
    TrackedTable { name: DISPLACED.to_owned(), columns: columns.into(), audience_is_generated: false }
}

#[derive(Debug)]
struct State {
    mode: Mode,
    tables: BTreeMap<String, Arc<TrackedTable>>,
    displaced: Arc<TrackedTable>,
    has_foreign_keys: bool,
}

/// The capture of one connection: shared by its functions, its authorizer and its transactions.
#[derive(Debug, Clone)]
pub(super) struct Capture(Arc<Mutex<State>>);

impl Capture {
    /// Gives the connection the functions that capture triggers call, and the authorizer.
    pub(super) fn install_functions(connection: &mut Connection) -> Result<Self, StoreError> {
        let capture = Self(Arc::new(Mutex::new(State {
            mode: Mode::Closed,
            tables: BTreeMap::new(),
            displaced: Arc::new(displaced_rows()),
            has_foreign_keys: true,
        })));
        let flags = FunctionFlags::SQLITE_UTF8;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_capturing", 0, flags, move |_| state.is_capturing())?;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_action", 0, flags, move |_| state.action())?;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_image", -1, flags, move |ctx| state.image(ctx))?;
        let state = capture.clone();
        connection.authorizer(Some(move |asked: AuthContext<'_>| state.authorize(&asked)))?;
        Ok(capture)
    }

    /// Reads the catalogue's word on these tables, and installs the triggers that are not there as they should be.
    pub(super) fn track(&self, connection: &Connection, tables: &[Table]) -> Result<(), StoreError> {
        let mut tracked = BTreeMap::new();
        for table in tables {
            let table = TrackedTable::read(connection, table)?;
            refuse_rollbacks(connection, &table.name)?;
            install(connection, &table)?;
            tracked.insert(table.name.clone(), Arc::new(table));
        }
        install(connection, &displaced_rows())?;
        let has_foreign_keys = connection.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema AS t, pragma_foreign_key_list(t.name) WHERE t.type = 'table')",
            [],
            |row| row.get(0),
        )?;
        let mut state = self.state();
        state.tables = tracked;
        state.has_foreign_keys = has_foreign_keys;
        Ok(())
    }

    pub(super) fn has_foreign_keys(&self) -> bool {
        self.state().has_foreign_keys
    }

    /// Whether every table is tracked here, and has every column of its effect.
    pub(super) fn fits<'e>(&self, effects: impl IntoIterator<Item = (&'e str, &'e Effect)>) -> bool {
        let state = self.state();
        effects.into_iter().all(|(table, effect)| {
            state.tables.get(table).is_some_and(|table| {
                effect.columns().into_iter().flat_map(Columns::keys).all(|column| table.columns.contains_key(column))
            })
        })
    }

    pub(super) fn set(&self, mode: Mode) {
        self.state().mode = mode;
    }

    pub(super) fn close(&self) {
        self.set(Mode::Closed);
    }

    pub(super) fn table(&self, name: &str) -> Option<Arc<TrackedTable>> {
        self.state().tables.get(name).cloned()
    }

    /// A tracked table, or the one of rows that are kept aside.
    pub(super) fn stored_table(&self, name: &str) -> Option<Arc<TrackedTable>> {
        let state = self.state();
        if name == DISPLACED { Some(Arc::clone(&state.displaced)) } else { state.tables.get(name).cloned() }
    }

    /// All tracked tables, by name.
    pub(super) fn tables(&self) -> Vec<Arc<TrackedTable>> {
        self.state().tables.values().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is a plain value: a panic between its changes leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_capturing(&self) -> Result<bool, Error> {
        match self.state().mode {
            Mode::Closed => Err(refusal("tracked tables are written by actions only")),
            Mode::Action(_) | Mode::Patch(_) => Ok(true),
            Mode::Rewind => Ok(false),
        }
    }

    fn action(&self) -> Result<Vec<u8>, Error> {
        match self.state().mode {
            Mode::Action(action) | Mode::Patch(action) => Ok(action.as_uuid().as_bytes().to_vec()),
            Mode::Closed | Mode::Rewind => Err(refusal("no action is running")),
        }
    }

    /// `synchrotron_image(table, operation, values…)`: the values are the old row's, then the new one's, as far as the
    /// operation has them, each in order of column name.
    fn image(&self, ctx: &Context<'_>) -> Result<Vec<u8>, Error> {
        let tracked = self
            .stored_table(ctx.get_raw(0).as_str()?)
            .ok_or_else(|| refusal("the table is not tracked by this program"))?;
        let width = tracked.columns.len();
        let read = |offset: usize| -> Result<Columns, Error> {
            tracked
                .columns
                .iter()
                .enumerate()
                .map(|(index, (name, reading))| {
                    let value = reading.read(ctx.get_raw(2 + offset + index));
                    value.map(|value| (name.clone(), value)).map_err(|error| refusal(&error.to_string()))
                })
                .collect()
        };
        let image: Image = match Operation::parse(ctx.get_raw(1).as_str()?) {
            Some(Operation::Insert) => (Columns::new(), read(0)?),
            Some(Operation::Delete) => (read(0)?, Columns::new()),
            _ => changed(read(0)?, read(width)?),
        };
        Ok(pack(&image))
    }

    fn authorize(&self, asked: &AuthContext<'_>) -> Authorization {
        let state = self.state();
        if !matches!(state.mode, Mode::Action(_)) {
            return Authorization::Allow;
        }
        let allowed = match asked.action {
            AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => true,
            AuthAction::Insert { table_name }
            | AuthAction::Update { table_name, .. }
            | AuthAction::Delete { table_name } => asked.accessor.is_some() || state.tables.contains_key(table_name),
            _ => false,
        };
        if allowed { Authorization::Allow } else { Authorization::Deny }
    }
}

/// A table, or a trigger on it, that may end the transaction beneath an action.
fn refuse_rollbacks(connection: &Connection, table: &str) -> Result<(), StoreError> {
    let mut statement = connection.prepare("SELECT sql FROM sqlite_schema WHERE tbl_name = ? AND sql IS NOT NULL")?;
    let definitions = statement.query_map([table], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    if definitions.iter().any(|sql| has_word(sql, "ROLLBACK")) {
        let problem = "it, or a trigger on it, says ROLLBACK, which would end more than the action: say ABORT";
        return Err(StoreError::Unsuitable { table: table.to_owned(), problem });
    }
    Ok(())
}

fn refusal(message: &str) -> Error {
    Error::UserFunctionError(format!("synchrotron: {message}").into())
}

/// Only the columns that differ.
fn changed(before: Columns, after: Columns) -> Image {
    before.into_iter().zip(after).filter(|((_, old), (_, new))| old != new).unzip()
}

/// Installs the triggers of one table that are not there, or not as its columns ask for.
fn install(connection: &Connection, table: &TrackedTable) -> Result<(), StoreError> {
    for (name, sql) in triggers(table) {
        let found: Option<String> = connection
            .query_row("SELECT sql FROM sqlite_schema WHERE type = 'trigger' AND name = ?", [&name], |row| row.get(0))
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
            format!("{old} IS NOT {new} OR typeof({old}) <> typeof({new})")
        })
        .collect();
    let differs = if differs.is_empty() { "FALSE".to_owned() } else { differs.join(" OR ") };
    let moved = "OLD.\"id\" IS NOT NEW.\"id\" OR OLD.\"audience_key\" IS NOT NEW.\"audience_key\"";
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
