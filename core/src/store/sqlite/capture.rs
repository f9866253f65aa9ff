//! Capture: triggers on tracked tables that write what a statement did into `local_undo`.
//!
//! The [triggers](super::triggers) are persistent and call functions that only this library's connections have, so a write
//! by any other program fails. On our own connection they refuse unless an action runs (or history is being rewound). What
//! they write is part of the transaction: a savepoint that is rolled back takes its captured effects along.
//!
//! `recursive_triggers` is on, so the row that `INSERT OR REPLACE` removes is captured too; so are cascades. An
//! authorizer keeps actions from the sync tables, from tables that are not captured, and from schema and transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, Error};

use super::codec::{Image, Reading, pack};
use super::tables::{TrackedTable, has_foreign_keys};
use super::{app_triggers, triggers};
use crate::action::Table;
use crate::model::{ActionId, Columns, Effect, Operation};
use crate::store::StoreError;

/// The functions that capture triggers call, with their numbers of arguments.
pub(super) const FUNCTIONS: [(&str, i32); 4] =
    [("synchrotron_capturing", 0), ("synchrotron_action", 0), (IN_ACTION, 0), ("synchrotron_image", -1)];

/// The function that is true while an action runs, and at no other time.
pub(super) const IN_ACTION: &str = "synchrotron_in_action";

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
    /// What triggers and views touch, while somebody asks.
    touched: Option<Touched>,
}

/// By trigger, the tables that it writes; a trigger that writes none is there too.
pub(super) type Touched = BTreeMap<String, BTreeSet<String>>;

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
            touched: None,
        })));
        let flags = FunctionFlags::SQLITE_UTF8;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_capturing", 0, flags, move |_| state.is_capturing())?;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_action", 0, flags, move |_| state.action())?;
        let state = capture.clone();
        connection
            .create_scalar_function(IN_ACTION, 0, flags, move |_| Ok(matches!(state.state().mode, Mode::Action(_))))?;
        let state = capture.clone();
        connection.create_scalar_function("synchrotron_image", -1, flags, move |ctx| state.image(ctx))?;
        let state = capture.clone();
        connection.authorizer(Some(move |asked: AuthContext<'_>| state.authorize(&asked)))?;
        Ok(capture)
    }

    /// Reads the catalogue's word on these tables, and installs the triggers that are not there as they should be.
    pub(super) fn track(&self, connection: &Connection, tables: &[Table]) -> Result<(), StoreError> {
        let has_foreign_keys = has_foreign_keys(connection, tables)?;
        let mut tracked = BTreeMap::new();
        for table in tables {
            tracked.insert(table.name().to_owned(), Arc::new(TrackedTable::read(connection, table)?));
        }
        app_triggers::keep_rules_to_actions(connection, self, &tracked)?;
        for table in tracked.values() {
            triggers::install(connection, table)?;
        }
        triggers::install(connection, &displaced_rows())?;
        let mut state = self.state();
        state.tables = tracked;
        state.has_foreign_keys = has_foreign_keys;
        Ok(())
    }

    /// What triggers touch when the statements run that `prepare` prepares.
    pub(super) fn touched_by(&self, prepare: impl FnOnce()) -> Touched {
        self.state().touched = Some(Touched::new());
        prepare();
        self.state().touched.take().unwrap_or_default()
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
        let mut state = self.state();
        if let (Some(touched), Some(accessor)) = (&mut state.touched, asked.accessor) {
            let written = touched.entry(accessor.to_owned()).or_default();
            written.extend(written_table(&asked.action).map(str::to_owned));
        }
        if !matches!(state.mode, Mode::Action(_)) {
            return Authorization::Allow;
        }
        let allowed = match asked.action {
            AuthAction::Select | AuthAction::Read { .. } | AuthAction::Function { .. } | AuthAction::Recursive => true,
            action => {
                written_table(&action).is_some_and(|table| asked.accessor.is_some() || state.tables.contains_key(table))
            }
        };
        if allowed { Authorization::Allow } else { Authorization::Deny }
    }
}

fn written_table<'a>(action: &AuthAction<'a>) -> Option<&'a str> {
    match action {
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => Some(table_name),
        _ => None,
    }
}

fn refusal(message: &str) -> Error {
    Error::UserFunctionError(format!("synchrotron: {message}").into())
}

/// Only the columns that differ.
fn changed(before: Columns, after: Columns) -> Image {
    before.into_iter().zip(after).filter(|((_, old), (_, new))| old != new).unzip()
}
