//! One device of a fleet: an engine on its own file, and a connection to the in-memory server.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use synchrotron_core::action::{Action, Registry, Table};
use synchrotron_core::engine::{Concluded, Engine, ExecuteInput, Finding, Limits};
use synchrotron_core::model::{ActionId, AudienceKey, BatchId, ClientId, Columns, RowId, UserId, Value};
use synchrotron_core::network::memory::{MemoryNetwork, MemoryServer};
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_core::store::{Durability, Reader, SqliteSettings, SqliteStore};
use synchrotron_core::wire::{Fault, FaultCode, Outcome, RejectionKind, SessionRequest};
use tempfile::TempDir;
use uuid::Uuid;

/// Later than any clock that a fleet makes.
pub(crate) const SERVER_NOW: i64 = 10_000_000;

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS cells (
    id TEXT PRIMARY KEY, x INTEGER, y INTEGER, z INTEGER, holder TEXT, audience_key TEXT NOT NULL)";

thread_local! {
    /// The device whose engine runs now: what an impure action wrongly looks at.
    pub(crate) static RUNNING_ON: Cell<u32> = const { Cell::new(0) };
}

pub(crate) struct Device {
    pub(crate) number: u32,
    pub(crate) audiences: Vec<&'static str>,
    pub(crate) executed: Vec<ActionId>,
    engine: Engine<SqliteStore>,
    network: MemoryNetwork,
    user: UserId,
    folder: TempDir,
    skew_ms: i64,
    made: u128,
    runtime: tokio::runtime::Runtime,
}

/// What a sync came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Synced {
    Done,
    /// Others were faster; the next try goes on.
    Behind,
}

impl Device {
    pub(crate) fn new<A: Action>(server: &MemoryServer, number: u32, audiences: &[&'static str], skew_ms: i64) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let user = UserId::new(format!("user{number}")).expect("ok");
        for audience in audiences {
            server.allow(&user, &AudienceKey::new(*audience).expect("ok"));
        }
        let tables = vec![Table::new("cells").given_ids()];
        let store = SqliteStore::open(&SqliteSettings {
            path: folder.path().join("app.db"),
            schema: SCHEMA.to_owned(),
            tables: tables.clone(),
            user_id: user.clone(),
            new_client_id: ClientId::from_uuid(Uuid::from_u128(0xd000 + u128::from(number))),
            durability: Durability::Normal,
            busy_timeout: Duration::from_secs(1),
        })
        .expect("opens");
        let mut registry = Registry::default();
        registry.register::<A>().expect("new");
        let mut device = Self {
            number,
            audiences: audiences.to_vec(),
            executed: Vec::new(),
            engine: Engine::new(store, registry, &tables, Limits::default()),
            network: server.connect(user.clone()),
            user,
            folder,
            skew_ms,
            made: 0,
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime"),
        };
        device.begin_session();
        device
    }

    pub(crate) fn user(&self) -> &UserId {
        &self.user
    }

    /// A fresh id, the same in every run of one seed.
    fn fresh(&mut self) -> Uuid {
        self.made += 1;
        Uuid::from_u128((u128::from(self.number) << 64) | self.made)
    }

    /// Executes an action; false if its rule says no.
    pub(crate) fn execute<A: Action>(&mut self, time: i64, action: &A) -> bool {
        RUNNING_ON.set(self.number);
        let action_id = ActionId::from_uuid(self.fresh());
        let input = ExecuteInput::new(action_id, 1_000_000 + time * 100 + self.skew_ms);
        let executed = self.engine.execute(action, input).is_ok();
        if executed {
            self.executed.push(action_id);
        }
        executed
    }

    /// Opens a session, takes snapshots, fetches, integrates, uploads.
    pub(crate) fn sync(&mut self) -> Synced {
        RUNNING_ON.set(self.number);
        self.begin_session();
        self.catch_up();
        let batch_id = BatchId::from_uuid(self.fresh());
        for _try in 0..100 {
            let Some(sent) = self.engine.next_batch(batch_id).expect("reads") else {
                self.catch_up();
                return Synced::Done;
            };
            let outcome = self.runtime.block_on(self.network.upload(&sent.batch)).expect("memory answers");
            assert!(
                !matches!(outcome, Outcome::Rejected { kind, .. } if kind != RejectionKind::DuplicateId),
                "{} may upload what it may execute: {outcome:?}",
                self.user
            );
            match self.engine.conclude(&sent, &outcome, SERVER_NOW).expect("concludes") {
                Concluded::Settled(_) | Concluded::Restamped(_) => {}
                Concluded::Snapshot => self.catch_up(),
                Concluded::Fetch | Concluded::Later => return Synced::Behind,
            }
        }
        panic!("{} never comes to an end of uploading", self.user);
    }

    fn begin_session(&mut self) {
        let request = SessionRequest { client_id: self.engine.client_id().expect("reads") };
        let session = self.runtime.block_on(self.network.session(&request)).expect("a session");
        self.engine.begin_session(&session, session.server_time_ms).expect("begins");
    }

    /// Takes snapshots and fetches until nothing more follows.
    fn catch_up(&mut self) {
        for _try in 0..1_000 {
            while let Some(request) = self.engine.snapshot_request().expect("reads") {
                match self.runtime.block_on(self.network.snapshot(&request)) {
                    Ok(chunk) => drop(self.engine.take_chunk(&chunk).expect("takes it")),
                    Err(NetworkError::Fault(Fault { code: FaultCode::SnapshotGone, .. })) => {
                        self.engine.abandon_snapshot().expect("abandons it");
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let request = self.engine.fetch_request().expect("sound, with a session");
            let page = match self.runtime.block_on(self.network.fetch(&request)) {
                Ok(page) => page,
                Err(NetworkError::Fault(Fault { code: FaultCode::Compacted | FaultCode::EpochChanged, .. })) => {
                    self.begin_session();
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let more = page.more;
            self.engine.integrate_page(page).expect("integrates");
            if !more && self.engine.snapshot_request().expect("reads").is_none() {
                return;
            }
        }
        panic!("{} never catches up", self.user);
    }

    pub(crate) fn engine(&mut self) -> &mut Engine<SqliteStore> {
        &mut self.engine
    }

    /// What a full check finds.
    pub(crate) fn findings(&mut self) -> Vec<Finding> {
        RUNNING_ON.set(self.number);
        self.engine.check().expect("reads").findings
    }

    /// Whether nothing waits for the server, corrections included.
    pub(crate) fn is_settled(&mut self) -> bool {
        let batch_id = BatchId::from_uuid(self.fresh());
        self.engine.next_batch(batch_id).expect("reads").is_none()
    }

    pub(crate) fn quarantined(&mut self) -> Vec<ActionId> {
        self.engine.quarantined().expect("reads").into_iter().map(|quarantined| quarantined.id).collect()
    }

    /// The rows as an app reads them.
    pub(crate) fn rows(&self) -> BTreeMap<RowId, Columns> {
        let reader = Reader::open(&self.folder.path().join("app.db")).expect("opens");
        let rows = reader.query("SELECT * FROM cells", &[]).expect("reads");
        rows.iter()
            .map(|row| {
                let mut columns = row.columns();
                columns.remove("audience_key");
                let Some(Value::Text(id)) = columns.remove("id") else { unreachable!("id is text") };
                (RowId::new(id).expect("not empty"), columns)
            })
            .collect()
    }
}

/// Syncs everybody until nothing moves any more; fails if that never comes.
pub(crate) fn settle(devices: &mut [Device], server: &MemoryServer) {
    for _round in 0..50 {
        let before = server.log().len();
        let done = devices.iter_mut().map(Device::sync).filter(|synced| *synced == Synced::Done).count();
        if done == devices.len() && server.log().len() == before && devices.iter_mut().all(Device::is_settled) {
            return;
        }
    }
    panic!("no fixed point in 50 rounds");
}

/// Promises 1 and 2: every executed action is in the log or in quarantine; every device shows what its user may see.
pub(crate) fn check_promises(devices: &mut [Device], server: &MemoryServer) {
    let logged: Vec<ActionId> = server.log().into_iter().map(|entry| entry.record.id).collect();
    for device in &mut *devices {
        let quarantined = device.quarantined();
        for action in &device.executed {
            let found = logged.contains(action) || quarantined.contains(action);
            assert!(found, "{action} of {} is neither in the log nor in quarantine", device.user());
        }
    }
    check_converged(devices, server);
}

/// Promise 2, and a silent doctor.
pub(crate) fn check_converged(devices: &mut [Device], server: &MemoryServer) {
    for device in devices {
        let truth: BTreeMap<RowId, Columns> =
            server.rows_visible_to(device.user()).into_iter().map(|(key, row)| (key.row_id, row.columns)).collect();
        assert_eq!(device.rows(), truth, "{} shows other rows than it may see", device.user());
        assert_eq!(device.findings(), [], "the doctor of {} is silent", device.user());
    }
}
