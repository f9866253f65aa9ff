//! A measured device: the engine on its own file.

use std::path::Path;
use std::time::Duration;

use synchrotron_core::action::Registry;
use synchrotron_core::engine::{Engine, ExecuteInput, Limits};
use synchrotron_core::model::Cursor;
use synchrotron_core::store::{Durability, SqliteSettings, SqliteStore};
use synchrotron_core::wire::{AudienceHead, FetchPage, Session};

use crate::app::{self, AddNote, Kind, RenameNote, Step};
use crate::error::BenchError;

/// As many as the driver integrates in one step while something is pending.
const PAGES_TOGETHER: usize = 16;

/// The engine of one device.
#[derive(Debug)]
pub(crate) struct Device {
    engine: Engine<SqliteStore>,
}

impl Device {
    /// Opens the file, or makes it, and begins a session.
    pub(crate) fn open(path: &Path, durability: Durability) -> Result<Self, BenchError> {
        let tables = app::tables();
        let store = SqliteStore::open(&SqliteSettings {
            path: path.to_owned(),
            schema: app::SCHEMA.to_owned(),
            tables: tables.clone(),
            user_id: app::user(),
            new_client_id: app::client_id(),
            durability,
            busy_timeout: Duration::from_secs(1),
        })?;
        let mut registry = Registry::default();
        registry.register::<AddNote>().expect("BUG: the app's tags differ");
        registry.register::<RenameNote>().expect("BUG: the app's tags differ");
        let mut engine = Engine::new(store, registry, &tables, Limits::default());
        let head = engine.cursors()?.get(&app::audience()).copied().unwrap_or_default();
        let session = Session {
            user_id: app::user(),
            epoch: app::epoch(),
            server_time_ms: app::BEGIN_MS,
            audiences: vec![AudienceHead { audience_key: app::audience(), head, retained: Cursor::START }],
        };
        engine.begin_session(&session, app::BEGIN_MS)?;
        Ok(Self { engine })
    }

    pub(crate) fn cursor(&mut self) -> Result<Cursor, BenchError> {
        Ok(self.engine.cursors()?.get(&app::audience()).copied().unwrap_or_default())
    }

    /// Runs the step as an own action.
    pub(crate) fn execute(&mut self, step: Step) -> Result<(), BenchError> {
        let input = ExecuteInput::new(step.action_id, step.now_ms);
        let (id, title) = (step.note, step.title);
        match step.kind {
            Kind::Add => self.engine.execute(&AddNote { id, title }, input).map(drop)?,
            Kind::Rename => self.engine.execute(&RenameNote { id, title }, input).map(drop)?,
        }
        Ok(())
    }

    /// Takes fetched pages as the driver does: one after the other if nothing is pending, otherwise many together.
    pub(crate) fn integrate(&mut self, pages: impl IntoIterator<Item = FetchPage>) -> Result<(), BenchError> {
        let mut pages = pages.into_iter().peekable();
        while pages.peek().is_some() {
            let together = if self.engine.pending_count()? == 0 { 1 } else { PAGES_TOGETHER };
            self.engine.integrate_pages(pages.by_ref().take(together).collect())?;
        }
        Ok(())
    }
}
