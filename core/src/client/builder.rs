//! An app's set-up: parts in, a checked client out.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::installation::{Installation, beside, new_client_id};
use super::shared::{Opened, Shared};
use super::slot::DriverSlot;
use super::trace::TraceContext;
use super::{Client, OpenError, elsewhere};
use crate::action::{Action, Identity, Registry, RegistryError, Table};
use crate::engine::{Engine, Limits};
use crate::model::{TableName, TraceParent, UserId};
use crate::store::{Durability, Sql, SqliteSettings, SqliteStore, StatusStore, Store, StoreError};

/// How often the driver looks by itself, and how long it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// While changes are pushed: how often to look for a missed one. Jittered.
    pub head_check: Duration,
    /// While nothing pushes: how often to poll. Jittered.
    pub poll: Duration,
    /// How long to wait for an action's other slices before fetching it.
    pub slice_wait: Duration,
    /// The first wait after a failure; it doubles, with full jitter.
    pub retry_first: Duration,
    /// The longest wait after a failure.
    pub retry_max: Duration,
    /// For how long a server that says that it is busy is asked again before the status says so.
    pub patience: Duration,
    /// How often to look whether another process committed to the same database. Looking reads no file.
    pub elsewhere: Duration,
    /// While another process syncs this database: the longest wait before trying to take over. Jittered.
    pub takeover: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            head_check: Duration::from_secs(20),
            poll: Duration::from_secs(1),
            slice_wait: Duration::from_millis(250),
            retry_first: Duration::from_millis(200),
            retry_max: Duration::from_secs(10),
            patience: Duration::from_secs(20),
            elsewhere: Duration::from_millis(100),
            takeover: Duration::from_secs(1),
        }
    }
}

/// Builds a [`Client`].
#[derive(Debug)]
pub struct ClientBuilder {
    database: Option<PathBuf>,
    user: Option<String>,
    schema: String,
    migrations: Vec<String>,
    tables: Vec<Table>,
    registry: Result<Registry, RegistryError>,
    durability: Durability,
    limits: Limits,
    timing: Timing,
    check_purity: bool,
    trace_context: TraceContext,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            database: None,
            user: None,
            schema: String::new(),
            migrations: Vec::new(),
            tables: Vec::new(),
            registry: Ok(Registry::default()),
            durability: Durability::default(),
            limits: Limits::default(),
            timing: Timing::default(),
            check_purity: false,
            trace_context: TraceContext::default(),
        }
    }
}

impl ClientBuilder {
    /// The database file; made if absent.
    #[must_use]
    pub fn database(self, path: impl Into<PathBuf>) -> Self {
        Self { database: Some(path.into()), ..self }
    }

    /// The signed-in user. A database belongs to one user, until it is signed out.
    #[must_use]
    pub fn user(self, user: impl Into<String>) -> Self {
        Self { user: Some(user.into()), ..self }
    }

    /// The app's own schema, safe to run at every start (`CREATE TABLE IF NOT EXISTS …`). What changes later is for
    /// [`Self::migrations`].
    #[must_use]
    pub fn schema(self, sql: impl Into<String>) -> Self {
        Self { schema: sql.into(), ..self }
    }

    /// What became of the schema since: SQL steps, run in order after [`Self::schema`], each once on each file, new or old.
    /// All that are missing run in the transaction that opens the database: one that fails leaves the file as it was, with
    /// [`StoreError::Migration`](crate::store::StoreError::Migration). Steps are only ever added at the end, and the schema
    /// stays what it was before the first. A file that a newer app has opened is refused, with
    /// [`StoreError::NewerApp`](crate::store::StoreError::NewerApp).
    ///
    /// A step may not write rows of synced tables: only actions do. A new column has to be one that older devices' rows can
    /// do without: it allows NULL, or has a default.
    ///
    /// ```no_run
    /// # use synchrotron_core::{action::Table, client::{Client, OpenError}};
    /// # async fn open() -> Result<Client, OpenError> {
    /// Client::builder()
    ///     .database("theatre.db")
    ///     .user("alice")
    ///     .schema("CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, label TEXT, audience_key TEXT NOT NULL)")
    ///     .migrations([
    ///         "ALTER TABLE seats ADD COLUMN price INTEGER NOT NULL DEFAULT 0",     // since 1.1
    ///         "CREATE INDEX seats_by_audience ON seats (audience_key)",            // since 1.2
    ///     ])
    ///     .table(Table::new("seats").identity(["label"]))
    ///     .open()
    ///     .await
    /// # }
    /// ```
    #[must_use]
    pub fn migrations<S: Into<String>>(self, steps: impl IntoIterator<Item = S>) -> Self {
        Self { migrations: steps.into_iter().map(Into::into).collect(), ..self }
    }

    /// Syncs a table.
    #[must_use]
    pub fn table(mut self, table: Table) -> Self {
        self.tables.push(table);
        self
    }

    /// Registers an action.
    #[must_use]
    pub fn action<A: Action>(mut self) -> Self {
        self.registry = self.registry.and_then(|mut registry| registry.register::<A>().map(|()| registry));
        self
    }

    /// Actions of a retired tag run as those of the tag that took its place; see [`Registry::upcast`].
    #[must_use]
    pub fn upcast<Old, New>(mut self, from: &str, to: &str, map: fn(Old) -> New) -> Self
    where
        Old: DeserializeOwned + 'static,
        New: Serialize + 'static,
    {
        self.registry = self.registry.and_then(|mut registry| registry.upcast(from, to, map).map(|()| registry));
        self
    }

    /// For development: runs each executed action twice and refuses one that does not do the same both times, with
    /// [`ExecuteError::Impure`](crate::engine::ExecuteError::Impure). Off by default.
    #[must_use]
    pub fn check_purity(self, check_purity: bool) -> Self {
        Self { check_purity, ..self }
    }

    /// What a power cut may take; [`Durability::Full`] by default.
    #[must_use]
    pub fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Bounds of actions and batches.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Intervals and waits.
    #[must_use]
    pub fn timing(self, timing: Timing) -> Self {
        Self { timing, ..self }
    }

    /// Where the trace of an executed action comes from: asked within each [`Client::execute`], on the task that calls it.
    /// It travels with the action, and devices that integrate it name it. Without this, actions belong to no trace.
    #[must_use]
    pub fn trace_context(self, current: impl Fn() -> Option<TraceParent> + Send + Sync + 'static) -> Self {
        Self { trace_context: TraceContext::new(current), ..self }
    }

    /// Opens the database. The client is offline, and whole.
    ///
    /// # Errors
    /// [`OpenError`] says what is missing or does not fit.
    pub async fn open(self) -> Result<Client, OpenError> {
        let shared = tokio::task::spawn_blocking(move || self.open_now())
            .await
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        let shared = Arc::new(shared);
        tokio::spawn(elsewhere::watch(Arc::downgrade(&shared)));
        Ok(Client { shared, driver: Arc::new(DriverSlot::default()) })
    }

    fn open_now(self) -> Result<Shared, OpenError> {
        let user_id = UserId::new(self.user.ok_or(OpenError::Missing { what: "user(…)" })?)?;
        let path = self.database.ok_or(OpenError::Missing { what: "database(…)" })?;
        let registry = self.registry?;
        registry.check()?;
        let beside = |error: io::Error| OpenError::Beside { path: beside(&path), kind: error.kind() };
        let mut installation = Installation::lock(&path).map_err(beside)?;
        let settings = SqliteSettings {
            path: path.clone(),
            schema: self.schema,
            tables: self.tables.clone(),
            user_id: user_id.clone(),
            new_client_id: new_client_id(),
            durability: self.durability,
            busy_timeout: Duration::from_secs(5),
        };
        let mut store = SqliteStore::open_migrated(&settings, &self.migrations)?;
        let txn = store.begin()?;
        check_identities(txn.as_sql(), &self.tables)?;
        let mut client_id = StatusStore::client_id(&*txn)?;
        drop(txn);
        let tables: Result<_, _> = self.tables.iter().map(|table| TableName::new(table.name())).collect();
        let checkpointer = store.checkpointer();
        let mut engine = Engine::new(store, registry, &self.tables, self.limits);
        engine.check_purity(self.check_purity);
        if installation.is_copy(&path, client_id).map_err(beside)? {
            client_id = new_client_id();
            engine.become_device(client_id)?;
        }
        installation.settle(&path, client_id).map_err(beside)?;
        engine.refit()?;
        let (tables, timing, trace_context) = (tables?, self.timing, self.trace_context);
        Ok(Shared::new(Opened { engine, checkpointer, path, client_id, user_id, tables, timing, trace_context })?)
    }
}

/// Refuses an identity of columns that the table does not have: otherwise its first insert would fail.
fn check_identities(sql: &dyn Sql, tables: &[Table]) -> Result<(), OpenError> {
    for table in tables {
        let Some(Identity::Columns(identity)) = table.row_identity() else { continue };
        let found =
            sql.query("SELECT name FROM pragma_table_info(?)", &[table.name().into()]).map_err(StoreError::from)?;
        let found: Vec<String> = found.iter().filter_map(|row| row.get("name").ok()).collect();
        if let Some(column) = identity.iter().find(|column| !found.contains(column)) {
            return Err(OpenError::Identity { table: table.name().to_owned(), column: column.clone() });
        }
    }
    Ok(())
}
