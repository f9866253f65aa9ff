//! What a user wants to do, as plain data: an action's tag and its arguments.
//!
//! Place in the journey: a workload makes intents, a plan holds them, a device executes them. Tags lead back to types.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use synchrotron_core::action::{Action, Registry, RegistryError};
use synchrotron_core::engine::{Committed, Engine, ExecuteError, ExecuteInput};
use synchrotron_core::store::{FaultyStore, SqliteStore};

/// An action to execute, as a plan keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The action's tag.
    pub tag: String,
    /// Its arguments.
    pub args: Json,
}

impl Intent {
    /// The intent to execute this action.
    ///
    /// # Panics
    /// If the action has no JSON form: arguments are plain data with string keys.
    #[must_use]
    pub fn of<A: Action>(action: &A) -> Self {
        let args = serde_json::to_value(action).expect("BUG: an action of a simulated app has a JSON form");
        Self { tag: A::TAG.to_owned(), args }
    }
}

impl fmt::Display for Intent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.tag, self.args)
    }
}

/// The engine of a simulated device.
pub(crate) type DeviceEngine = Engine<FaultyStore<SqliteStore>>;

/// Why an intent was not executed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IntentError {
    /// The engine says no.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
    /// The plan's arguments are not this action's.
    #[error("arguments do not fit: {detail}")]
    Arguments {
        /// The decoder's words.
        detail: String,
    },
}

/// An action that the app knows, from some version of it on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KnownAction {
    pub(crate) since: u32,
    pub(crate) register: fn(&mut Registry) -> Result<(), RegistryError>,
    pub(crate) execute: fn(&mut DeviceEngine, &Json, ExecuteInput) -> Result<Committed, IntentError>,
}

impl KnownAction {
    pub(crate) fn of<A: Action>(since: u32) -> Self {
        Self { since, register: Registry::register::<A>, execute: execute::<A> }
    }
}

fn execute<A: Action>(engine: &mut DeviceEngine, args: &Json, input: ExecuteInput) -> Result<Committed, IntentError> {
    let action: A =
        serde_json::from_value(args.clone()).map_err(|error| IntentError::Arguments { detail: error.to_string() })?;
    Ok(engine.execute(&action, input)?.committed)
}
