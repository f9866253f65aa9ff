//! One phone through the versions of its app: each opens the same file with its own actions, tables and schema.

use std::collections::BTreeMap;

use serde::Serialize;
use synchrotron_core::action::{Action, Registry, Table};
use synchrotron_core::engine::{Engine, EngineError, ExecuteError, ExecuteInput, Limits, Progress};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursor, Cursors, Effect,
    Epoch, Hlc, Patch, RecordBody, RowId, ServerIngestId, SliceTag, SnapshotId, TableName, UserId, Value,
};
use synchrotron_core::store::{Reader, Row, SqliteStore};
use synchrotron_core::wire::{
    AudienceHead, FetchPage, LogRecord, Session, SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition,
    SnapshotRow, UploadRecord,
};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::{NOW, settings};

/// One release of an app.
#[derive(Clone)]
pub(crate) struct Version {
    pub(crate) schema: String,
    pub(crate) tables: Vec<Table>,
    pub(crate) registry: Registry,
}

pub(crate) struct Phone {
    pub(crate) engine: Engine<SqliteStore>,
    folder: TempDir,
    next_id: u128,
}

fn open(folder: &TempDir, version: &Version) -> Engine<SqliteStore> {
    let settings = settings(&folder.path().join("app.db"), &version.schema, version.tables.clone());
    let store = SqliteStore::open(&settings).expect("opens");
    Engine::new(store, version.registry.clone(), &version.tables, Limits::default())
}

impl Phone {
    /// A new phone with a session, in the audiences `p` and `user:alice`.
    pub(crate) fn new(version: &Version) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut phone = Self { engine: open(&folder, version), folder, next_id: 0 };
        phone.begin_session();
        phone
    }

    /// The same file, opened by another version of the app.
    pub(crate) fn upgrade(self, version: &Version) -> Self {
        let Self { engine, folder, next_id } = self;
        drop(engine);
        Self { engine: open(&folder, version), folder, next_id }
    }

    fn begin_session(&mut self) {
        self.begin_session_in(&[("p", 0), ("user:alice", 0)]);
    }

    /// A session in these audiences, each with its head.
    pub(crate) fn begin_session_in(&mut self, audiences: &[(&str, i64)]) {
        let head = |(key, head): &(&str, i64)| {
            let (head, retained) = (Cursor::new(*head), Cursor::START);
            AudienceHead { audience_key: audience(key), head, retained }
        };
        let session = Session {
            user_id: UserId::new("alice").expect("ok"),
            epoch: epoch(),
            server_time_ms: NOW,
            audiences: audiences.iter().map(head).collect(),
        };
        self.engine.begin_session(&session, NOW).expect("same user, same epoch");
    }

    /// Takes a snapshot of one stale audience, through this arrival.
    pub(crate) fn take_snapshot(&mut self, key: &str, through: i64, rows: Vec<SnapshotRow>) {
        let count = u64::try_from(rows.len()).expect("few");
        let of =
            SnapshotAudience { audience_key: audience(key), cursor: Cursor::new(through), floor: None, rows: count };
        let header = SnapshotHeader { audiences: vec![of], known: BTreeMap::new() };
        let position = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(Uuid::from_u128(1)), chunk: 0 };
        let chunk = SnapshotChunk { position, header: Some(header), rows, last: true };
        let progress = self.engine.take_chunk(&chunk).expect("takes it");
        assert!(matches!(progress, Progress::Done(_)), "{progress:?}");
    }

    pub(crate) fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("app.db")
    }

    pub(crate) fn execute<A: Action>(&mut self, action: &A) -> Result<ActionId, ExecuteError> {
        self.next_id += 1;
        let action_id = ActionId::from_uuid(Uuid::from_u128(self.next_id));
        self.engine.execute(action, ExecuteInput::new(action_id, NOW)).map(|_| action_id)
    }

    /// Takes a page of audience `p` through the newest of these records.
    pub(crate) fn take(&mut self, records: Vec<LogRecord>) -> Result<(), EngineError> {
        self.take_of("p", records)
    }

    /// Takes a page of one audience through the newest of these records.
    pub(crate) fn take_of(&mut self, key: &str, records: Vec<LogRecord>) -> Result<(), EngineError> {
        let through = records.iter().filter_map(|record| record.record.server_ingest_id).max();
        let cursors = through.map(|through| (audience(key), Cursor::new(through.get())));
        let page = FetchPage { epoch: epoch(), records, cursors: Cursors::from_iter(cursors), more: false };
        self.engine.integrate_page(page).map(drop)
    }

    /// What would be uploaded now.
    pub(crate) fn unsent(&mut self) -> Vec<UploadRecord> {
        let batch = self.engine.next_batch(BatchId::from_uuid(Uuid::from_u128(1))).expect("a session was begun");
        batch.map(|sent| sent.batch.records).unwrap_or_default()
    }

    pub(crate) fn rows(&self, query: &str) -> Vec<Columns> {
        let reader = Reader::open(&self.path()).expect("opens");
        reader.query(query, &[]).expect("a good query").iter().map(Row::columns).collect()
    }

    /// The values of column `c` of a query.
    pub(crate) fn column(&self, query: &str) -> Vec<Value> {
        self.rows(query).into_iter().map(|mut row| row.remove("c").expect("a column c")).collect()
    }
}

pub(crate) fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("ok")
}

pub(crate) fn epoch() -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(0xe))
}

/// An effect on a row of audience `p`, without a place yet.
pub(crate) fn effect(table: &str, row: &str, effect: Effect) -> Patch {
    Patch {
        sequence: 0,
        table: TableName::new(table).expect("ok"),
        row_id: RowId::new(row).expect("ok"),
        audience_key: audience("p"),
        effect,
    }
}

pub(crate) fn columns<const N: usize>(pairs: [(&str, Value); N]) -> Columns {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// A record of another device: `number` is its arrival, `at_ms` its clock.
pub(crate) fn remote(number: i64, at_ms: i64, tag: &str, args: &impl Serialize, mut rows: Vec<Patch>) -> LogRecord {
    let id = ActionId::from_uuid(Uuid::from_u128(0xf000 + u128::from(number.cast_unsigned())));
    let args = ActionArgs::from_encoded(rmp_serde::to_vec_named(args).expect("encodes")).expect("a map");
    for (sequence, row) in (0..).zip(&mut rows) {
        row.sequence = sequence;
    }
    LogRecord {
        record: ActionRecord {
            id,
            clock: Hlc::at_millis(at_ms),
            client_id: ClientId::from_uuid(Uuid::from_u128(0xc2)),
            user_id: UserId::new("bob").expect("ok"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body: RecordBody::Action { tag: ActionTag::new(tag).expect("ok"), args },
        },
        row_count: u32::try_from(rows.len()).expect("few"),
        slices: vec![SliceTag::of(id, &audience("p"))],
        rows,
    }
}
