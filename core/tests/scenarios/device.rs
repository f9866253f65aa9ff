//! One device of a story: an engine on its own file, and a connection to the story's server.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{BoxStream, StreamExt};
use synchrotron_core::action::{Action, Table};
use synchrotron_core::engine::{
    Committed, Concluded, Engine, EngineError, ExecuteError, ExecuteInput, Limits, Progress, SentBatch,
};
use synchrotron_core::model::{ActionId, BatchId, ClientId, UserId};
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Ingress, Network, NetworkError};
use synchrotron_core::store::{Durability, Fate, Quarantined, SqliteSettings, SqliteStore};
use synchrotron_core::wire::{
    Fault, FaultCode, FetchPage, Outcome, SessionRequest, Slice, SnapshotChunk, UploadRecord,
};
use uuid::Uuid;

use crate::actions::{RUNNING_ON, registry};
use crate::fleet::{World, user_id};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS notes (
        id TEXT PRIMARY KEY, title TEXT NOT NULL, content TEXT NOT NULL, tags JSON NOT NULL DEFAULT '[]',
        updated_at INTEGER, user_id TEXT NOT NULL, audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS note_admin_meta (
        id TEXT PRIMARY KEY, note_id TEXT NOT NULL REFERENCES notes (id) ON DELETE CASCADE, kind TEXT, last_seen_content TEXT, audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS projects (
        id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, audience_key TEXT GENERATED ALWAYS AS ('project:' || id) STORED
    );
    CREATE TABLE IF NOT EXISTS tasks (
        id TEXT PRIMARY KEY, project_id TEXT NOT NULL REFERENCES projects (id) ON DELETE CASCADE, text TEXT NOT NULL,
        audience_key TEXT GENERATED ALWAYS AS ('project:' || project_id) STORED
    );
";

pub(crate) const TRACKED: [&str; 4] = ["notes", "note_admin_meta", "projects", "tasks"];

/// A device of the fleet.
pub(crate) struct Device {
    pub(crate) name: &'static str,
    pub(crate) user: UserId,
    /// What `run` returned Ok for.
    pub(crate) executed: Vec<ActionId>,
    pub(crate) network: MemoryNetwork,
    /// How far this device's wall clock is off.
    pub(crate) skew_ms: i64,
    engine: Engine<SqliteStore>,
    settings: SqliteSettings,
    clock: Arc<AtomicI64>,
    live: Option<BoxStream<'static, Ingress>>,
    made: u128,
}

/// Why a sync did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The server said not now, or not so.
    #[error("not now: {0:?}")]
    Later(Outcome),
    #[error("others were faster each time")]
    StillBehind,
}

impl Device {
    /// A device whose app does not know the tags in `without`. It has had no session yet.
    pub(crate) fn open(world: &World, user: &str, name: &'static str, without: &[&str]) -> Self {
        let mut code = [0; 16];
        code[..name.len()].copy_from_slice(name.as_bytes());
        let settings = SqliteSettings {
            path: world.folder.path().join(format!("{name}.db")),
            schema: SCHEMA.to_owned(),
            tables: tables(),
            user_id: user_id(user),
            new_client_id: ClientId::from_uuid(Uuid::from_bytes(code)),
            durability: Durability::Normal,
            busy_timeout: Duration::from_millis(50),
        };
        Self {
            name,
            user: user_id(user),
            executed: Vec::new(),
            network: world.server.connect(user_id(user)),
            skew_ms: 0,
            engine: engine(&settings, without),
            settings,
            clock: Arc::clone(&world.clock),
            live: None,
            made: 0,
        }
    }

    /// Ends the app and starts it again, perhaps in another version that knows other tags.
    pub(crate) fn restart(&mut self, without: &[&str]) {
        self.engine = engine(&self.settings, without);
    }

    /// The engine; from now on actions run on this device.
    pub(crate) fn engine(&mut self) -> &mut Engine<SqliteStore> {
        RUNNING_ON.set(self.name);
        &mut self.engine
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.settings.path
    }

    fn fresh(&mut self) -> Uuid {
        self.made += 1;
        Uuid::from_u128((self.settings.new_client_id.as_uuid().as_u128()) | self.made)
    }

    /// Executes an action that works.
    pub(crate) fn run<A: Action>(&mut self, action: &A) -> ActionId {
        self.try_run(action).unwrap_or_else(|error| panic!("{} cannot run {}: {error}", self.name, A::TAG))
    }

    /// Executes an action.
    pub(crate) fn try_run<A: Action>(&mut self, action: &A) -> Result<ActionId, ExecuteError> {
        self.clock.fetch_add(1, Ordering::SeqCst);
        let now_ms = self.now_ms();
        let action_id = ActionId::from_uuid(self.fresh());
        self.engine().execute(action, ExecuteInput::new(action_id, now_ms))?;
        self.executed.push(action_id);
        Ok(action_id)
    }

    /// What this device's wall clock shows.
    fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst) + self.skew_ms
    }

    /// Asks the server who this is and what it may see.
    pub(crate) fn begin_session(&mut self) -> Result<Committed, Trouble> {
        let request = SessionRequest { client_id: self.engine().client_id().expect("reads") };
        let session = now(self.network.session(&request))?;
        let now_ms = self.now_ms();
        Ok(self.engine().begin_session(&session, now_ms)?)
    }

    /// The next chunk of a snapshot, without taking it; `None` if no audience needs one.
    pub(crate) fn chunk(&mut self) -> Result<Option<SnapshotChunk>, Trouble> {
        let Some(request) = self.engine().snapshot_request()? else { return Ok(None) };
        Ok(Some(now(self.network.snapshot(&request))?))
    }

    /// Takes snapshots until no audience needs one.
    pub(crate) fn snapshot(&mut self) -> Result<Committed, Trouble> {
        let mut all = Committed::default();
        loop {
            match self.chunk() {
                Ok(None) => return Ok(all),
                Ok(Some(chunk)) => {
                    if let Progress::Done(committed) = self.engine().take_chunk(&chunk)? {
                        merge(&mut all, committed);
                    }
                }
                Err(Trouble::Network(NetworkError::Fault(Fault { code: FaultCode::SnapshotGone, .. }))) => {
                    self.engine().abandon_snapshot()?;
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }

    /// Session, snapshots, fetch, upload, fetch: everything that a sync pass does.
    pub(crate) fn sync(&mut self) -> Committed {
        self.try_sync().unwrap_or_else(|trouble| panic!("{} cannot sync: {trouble}", self.name))
    }

    pub(crate) fn try_sync(&mut self) -> Result<Committed, Trouble> {
        let mut all = self.begin_session()?;
        merge(&mut all, self.fetch()?);
        for _try in 0..8 {
            let Some(sent) = self.batch() else {
                merge(&mut all, self.fetch()?);
                return Ok(all);
            };
            let outcome = self.send(&sent)?;
            match self.conclude(&sent, &outcome)? {
                Concluded::Settled(committed) | Concluded::Restamped(committed) => merge(&mut all, committed),
                Concluded::Fetch | Concluded::Snapshot => merge(&mut all, self.fetch()?),
                Concluded::Later => return Err(Trouble::Later(outcome)),
            }
        }
        Err(Trouble::StillBehind)
    }

    pub(crate) fn conclude(&mut self, sent: &SentBatch, outcome: &Outcome) -> Result<Concluded, EngineError> {
        let now_ms = self.now_ms();
        self.engine().conclude(sent, outcome, now_ms)
    }

    /// Takes snapshots where they are needed, fetches and integrates until nothing more follows.
    pub(crate) fn fetch(&mut self) -> Result<Committed, Trouble> {
        let mut all = self.snapshot()?;
        loop {
            let page = self.page()?;
            let more = page.more;
            merge(&mut all, self.engine().integrate_page(page)?);
            merge(&mut all, self.snapshot()?);
            if !more {
                return Ok(all);
            }
        }
    }

    /// What a fetch would bring, without taking it.
    pub(crate) fn page(&mut self) -> Result<FetchPage, Trouble> {
        let request = self.engine().fetch_request()?;
        Ok(now(self.network.fetch(&request))?)
    }

    /// What would be uploaded next.
    pub(crate) fn batch(&mut self) -> Option<SentBatch> {
        let batch_id = BatchId::from_uuid(self.fresh());
        self.engine().next_batch(batch_id).expect("a session was begun")
    }

    pub(crate) fn send(&self, sent: &SentBatch) -> Result<Outcome, NetworkError> {
        now(self.network.upload(&sent.batch))
    }

    /// Records that wait for the server, corrections included.
    pub(crate) fn pending(&mut self) -> Vec<UploadRecord> {
        self.batch().map(|sent| sent.batch.records).unwrap_or_default()
    }

    /// Listens to live slices from now on.
    pub(crate) fn listen(&mut self) {
        let audiences: Vec<_> = self.engine().cursors().expect("reads").into_keys().collect();
        self.live = now(self.network.subscribe(&audiences)).expect("online");
    }

    /// The slices that came since [`Self::listen`].
    pub(crate) fn slices(&mut self) -> Vec<Slice> {
        let live = self.live.as_mut().expect("the device listens");
        let mut slices = Vec::new();
        while let Some(Some(event)) = live.next().now_or_never() {
            if let Ingress::Slice(slice) = event {
                slices.push(slice);
            }
        }
        slices
    }

    pub(crate) fn fate(&mut self, action: ActionId) -> Option<Fate> {
        self.engine().fate(action).expect("reads")
    }

    /// Whether an action is committed on the server. One that was given another clock may count as changed: the time that
    /// it writes is another.
    pub(crate) fn is_committed(&mut self, action: ActionId) -> bool {
        matches!(self.fate(action), Some(Fate::Confirmed | Fate::Changed { reason: None }))
    }

    pub(crate) fn quarantined(&mut self) -> Vec<Quarantined> {
        self.engine().quarantined().expect("reads")
    }
}

fn tables() -> Vec<Table> {
    let identity = |table: &'static str| match table {
        "notes" => Table::new(table).identity(["user_id", "title"]),
        _ => Table::new(table).given_ids(),
    };
    TRACKED.into_iter().map(identity).collect()
}

fn engine(settings: &SqliteSettings, without: &[&str]) -> Engine<SqliteStore> {
    let store = SqliteStore::open(settings).expect("opens");
    Engine::new(store, registry(without), &settings.tables, Limits::default())
}

/// The server in this process answers at once.
fn now<T>(answer: impl Future<Output = T>) -> T {
    answer.now_or_never().expect("memory answers at once")
}

fn merge(all: &mut Committed, more: Committed) {
    all.rows.extend(more.rows);
    all.tables.extend(more.tables);
    all.fates.extend(more.fates);
}
