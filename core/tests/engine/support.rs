//! An engine on a fresh database file, and an action that runs whatever a test wants.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry, Table};
use synchrotron_core::engine::{Engine, ExecuteError, ExecuteInput, Limits, SentBatch};
use synchrotron_core::model::{
    ActionId, AudienceKey, BatchId, ClientId, Columns, Cursor, Effect, Epoch, Patch, UserId, Value,
};
use synchrotron_core::store::{Durability, Reader, SqliteSettings, SqliteStore, StoreError};
use synchrotron_core::wire::{AudienceHead, Session};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const SCHEMA: &str = r#"
    CREATE TABLE IF NOT EXISTS notes (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT, body BLOB, score REAL, done BOOLEAN, tags JSON,
        audience_key TEXT GENERATED ALWAYS AS ('user:' || owner) STORED,
        title_length INTEGER GENERATED ALWAYS AS (length(title)) VIRTUAL
    );
    CREATE TABLE IF NOT EXISTS lists (id TEXT PRIMARY KEY, name TEXT UNIQUE, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS items (
        id TEXT PRIMARY KEY, list_id TEXT REFERENCES lists (id) ON DELETE CASCADE, text TEXT, audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS "odd ""name's" (id TEXT PRIMARY KEY, "a ""column's" TEXT, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS untracked (id TEXT PRIMARY KEY);
"#;

/// What an audience key may hold: everything but NUL.
pub(crate) const ODD_AUDIENCE: &str = "a.b * > \n 🎭 '\"";

pub(crate) const NOW: i64 = 1_000_000;

/// Runs statements, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RunSql {
    pub(crate) statements: Vec<(String, Vec<Value>)>,
}

impl Action for RunSql {
    const TAG: &'static str = "run_sql_v1";
    type Output = Vec<usize>;

    fn run(&self, ctx: &mut Context<'_>) -> Result<Vec<usize>, ActionError> {
        self.statements.iter().map(|(sql, values)| ctx.execute(sql, values)).collect()
    }
}

pub(crate) fn sql(statements: &[&str]) -> RunSql {
    RunSql { statements: statements.iter().map(|sql| ((*sql).to_owned(), Vec::new())).collect() }
}

pub(crate) fn tables() -> Vec<Table> {
    vec![
        Table::new("notes").identity(["owner", "title"]),
        Table::new("lists").given_ids(),
        Table::new("items").given_ids(),
        Table::new("odd \"name's").given_ids(),
    ]
}

pub(crate) struct Device {
    pub(crate) engine: Engine<SqliteStore>,
    pub(crate) folder: TempDir,
    next_id: u128,
}

pub(crate) fn settings(path: &Path, schema: &str, tables: Vec<Table>) -> SqliteSettings {
    SqliteSettings {
        path: path.to_owned(),
        schema: schema.to_owned(),
        tables,
        user_id: UserId::new("alice").expect("ok"),
        new_client_id: ClientId::from_uuid(Uuid::from_u128(0xc1)),
        durability: Durability::Normal,
        busy_timeout: Duration::from_millis(200),
    }
}

pub(crate) fn open_with(schema: &str, tables: Vec<Table>) -> Result<SqliteStore, StoreError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    SqliteStore::open(&settings(&folder.path().join("app.db"), schema, tables))
}

/// An engine that knows [`RunSql`].
pub(crate) fn engine_on(store: SqliteStore) -> Engine<SqliteStore> {
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new tag");
    Engine::new(store, registry, &tables(), Limits::default())
}

impl Device {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = SqliteStore::open(&settings(&folder.path().join("app.db"), SCHEMA, tables())).expect("opens");
        Self { engine: engine_on(store), folder, next_id: 0 }
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("app.db")
    }

    pub(crate) fn next_action_id(&mut self) -> ActionId {
        self.next_id += 1;
        ActionId::from_uuid(Uuid::from_u128(self.next_id))
    }

    pub(crate) fn run(&mut self, statements: &[&str]) -> Result<ActionId, ExecuteError> {
        self.run_action(&sql(statements))
    }

    pub(crate) fn run_action(&mut self, action: &RunSql) -> Result<ActionId, ExecuteError> {
        let action_id = self.next_action_id();
        self.engine.execute(action, ExecuteInput::new(action_id, NOW)).map(|_| action_id)
    }

    pub(crate) fn begin_session(&mut self) {
        let had = self.engine.cursors().expect("reads");
        let at = |audience: &str| {
            let audience_key = AudienceKey::new(audience).expect("ok");
            let head = had.get(&audience_key).copied().unwrap_or(Cursor::START);
            AudienceHead { audience_key, head, retained: Cursor::START }
        };
        let session = Session {
            user_id: UserId::new("alice").expect("ok"),
            epoch: Epoch::from_uuid(Uuid::from_u128(0xe)),
            server_time_ms: NOW,
            audiences: ["p", "user:alice", ODD_AUDIENCE].map(at).into(),
        };
        self.engine.begin_session(&session, NOW).expect("same user, same epoch");
    }

    /// What would be uploaded now.
    pub(crate) fn batch(&mut self) -> Option<SentBatch> {
        self.begin_session();
        self.engine.next_batch(BatchId::from_uuid(Uuid::from_u128(1))).expect("a session was begun")
    }

    /// The patches of all pending records, as they would be uploaded.
    pub(crate) fn pending(&mut self) -> Vec<(ActionId, Vec<Patch>)> {
        let records = self.batch().map(|sent| sent.batch.records).unwrap_or_default();
        records.into_iter().map(|record| (record.id, record.rows)).collect()
    }

    /// The patch of the newest pending action.
    pub(crate) fn newest_patch(&mut self) -> Vec<Patch> {
        self.pending().pop().expect("an action is pending").1
    }

    pub(crate) fn rows(&self, query: &str) -> Vec<Columns> {
        let reader = Reader::open(&self.path()).expect("opens");
        reader.query(query, &[]).expect("a good query").iter().map(synchrotron_core::store::Row::columns).collect()
    }

    pub(crate) fn count(&self, table: &str) -> i64 {
        let rows = self.rows(&format!("SELECT count(*) AS n FROM {table}"));
        match rows[0]["n"] {
            Value::Integer(count) => count,
            _ => unreachable!("count(*) is an integer"),
        }
    }
}

/// `operation row {column: value, …}`, so that a test reads like a story.
pub(crate) fn story(patch: &[Patch]) -> Vec<String> {
    let columns = |effect: &Effect| match effect.columns() {
        Some(columns) => {
            let pairs: Vec<String> = columns.iter().map(|(name, value)| format!("{name}={}", glyph(value))).collect();
            format!(" {{{}}}", pairs.join(", "))
        }
        None => String::new(),
    };
    patch
        .iter()
        .map(|patch| {
            let operation = patch.effect.operation().as_str();
            format!("{} {operation} {}.{}{}", patch.sequence, patch.table, patch.row_id, columns(&patch.effect))
        })
        .collect()
}

fn glyph(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(b) => b.to_string(),
        Value::Integer(n) => n.to_string(),
        Value::Real(r) => format!("{r:?}"),
        Value::Text(text) => format!("'{text}'"),
        Value::Json(text) => format!("json {text}"),
        Value::Bytes(bytes) => format!("{bytes:?}"),
    }
}
