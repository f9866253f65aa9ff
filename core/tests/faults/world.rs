//! A hall with seats, two devices that book them offline, and a look at every byte that a device keeps.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry, Table};
use synchrotron_core::engine::{Engine, EngineError, ExecuteError, ExecuteInput, Limits, SentBatch};
use synchrotron_core::model::{
    ActionId, ActionRecord, AudienceKey, BatchId, ClientId, Cursor, Cursors, Epoch, ServerIngestId, SliceTag, UserId,
};
use synchrotron_core::params;
use synchrotron_core::store::{Durability, FaultSwitch, FaultyStore, SqliteSettings, SqliteStore, Store, StoreError};
use synchrotron_core::wire::{AudienceHead, FetchPage, LogRecord, Session};
use uuid::Uuid;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, holder TEXT, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS bookings (
        id TEXT PRIMARY KEY, seat TEXT REFERENCES seats (id) ON DELETE CASCADE, guest TEXT, audience_key TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS receipts (id TEXT PRIMARY KEY, guest TEXT, scan BLOB, audience_key TEXT NOT NULL);
";

/// Wall time of the first booking, in milliseconds.
pub(crate) const NOW: i64 = 1_000_000;
/// Alice's device, which dies; and Bob's.
pub(crate) const ALICE: u128 = 0xc1;
pub(crate) const BOB: u128 = 0xc2;

fn tables() -> Vec<Table> {
    vec![
        Table::new("seats").given_ids(),
        Table::new("bookings").identity(["seat", "guest"]),
        Table::new("receipts").identity(["guest", "scan"]),
    ]
}

/// Opens the hall: this many seats, `s0`, `s1`, …
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct OpenHall {
    pub(crate) seats: usize,
}

impl Action for OpenHall {
    const TAG: &'static str = "open_hall_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        (0..self.seats).try_for_each(|seat| ctx.insert("seats", &[("id", format!("s{seat}").into()), key()]).map(drop))
    }
}

/// Books a seat that is free: three rows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) seat: usize,
    pub(crate) guest: String,
    pub(crate) scan_bytes: usize,
}

impl Action for Book {
    const TAG: &'static str = "book_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let seat = format!("s{}", self.seat);
        let free = ctx.query_one("SELECT 1 FROM seats WHERE id = ? AND holder IS NULL", params![&seat])?;
        if free.is_none() {
            return Err(ActionError::reject(format!("seat {seat} is taken")));
        }
        let guest = || (&self.guest).into();
        ctx.insert("bookings", &[("seat", (&seat).into()), ("guest", guest()), key()])?;
        ctx.execute("UPDATE seats SET holder = ? WHERE id = ?", params![&self.guest, &seat])?;
        ctx.insert("receipts", &[("guest", guest()), ("scan", vec![0xab; self.scan_bytes].into()), key()])?;
        Ok(())
    }
}

fn key() -> (&'static str, synchrotron_core::model::Value) {
    ("audience_key", "hall".into())
}

pub(crate) fn book(seat: usize, guest: &str) -> Book {
    Book { seat, guest: guest.to_owned(), scan_bytes: 16 }
}

/// A device with a switch that makes its store fail.
pub(crate) struct Device {
    pub(crate) engine: Engine<FaultyStore<SqliteStore>>,
    pub(crate) switch: FaultSwitch,
    client: u128,
}

/// The file of a device's database.
pub(crate) fn file(folder: &Path) -> std::path::PathBuf {
    folder.join("app.db")
}

pub(crate) fn open_store(folder: &Path, client: u128, schema: &str) -> Result<SqliteStore, StoreError> {
    SqliteStore::open(&SqliteSettings {
        path: file(folder),
        schema: schema.to_owned(),
        tables: tables(),
        user_id: user(client),
        new_client_id: ClientId::from_uuid(Uuid::from_u128(client)),
        durability: Durability::Normal,
        busy_timeout: Duration::from_millis(50),
    })
}

fn user(client: u128) -> UserId {
    UserId::new(if client == ALICE { "alice" } else { "bob" }).expect("a good name")
}

pub(crate) fn epoch() -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(0xe))
}

fn hall() -> AudienceKey {
    AudienceKey::new("hall").expect("a good key")
}

impl Device {
    /// A device on the database in this folder, which may be new.
    pub(crate) fn open(folder: &Path, client: u128) -> Self {
        Self::on(open_store(folder, client, SCHEMA).expect("opens"), client)
    }

    pub(crate) fn on(store: SqliteStore, client: u128) -> Self {
        let mut registry = Registry::default();
        registry.register::<OpenHall>().expect("new");
        registry.register::<Book>().expect("new");
        let switch = FaultSwitch::default();
        let engine = Engine::new(FaultyStore::new(store, switch.clone()), registry, &tables(), Limits::default());
        Self { engine, switch, client }
    }

    pub(crate) fn begin_session(&mut self) {
        self.session(epoch(), vec![hall()]).expect("begins");
    }

    /// The server was restored from a backup: another history.
    pub(crate) fn begin_session_of_restored_server(&mut self) -> Result<(), EngineError> {
        self.session(Epoch::from_uuid(Uuid::from_u128(0xe2)), vec![hall()])
    }

    /// The user is in no audience any more.
    pub(crate) fn begin_session_outside_the_hall(&mut self) -> Result<(), EngineError> {
        self.session(epoch(), vec![])
    }

    fn session(&mut self, epoch: Epoch, audiences: Vec<AudienceKey>) -> Result<(), EngineError> {
        let at_start = |audience_key| AudienceHead { audience_key, head: Cursor::START, retained: Cursor::START };
        let audiences = audiences.into_iter().map(at_start).collect();
        let session = Session { user_id: user(self.client), epoch, server_time_ms: NOW, audiences };
        self.engine.begin_session(&session, NOW).map(drop)
    }

    /// Executes as the `n`th action of this device, at this many milliseconds after [`NOW`].
    pub(crate) fn try_execute<A: Action>(&mut self, n: u128, at_ms: i64, action: &A) -> Result<ActionId, ExecuteError> {
        let action_id = ActionId::from_uuid(Uuid::from_u128((self.client << 32) + n));
        self.engine.execute(action, ExecuteInput::new(action_id, NOW + at_ms)).map(|_| action_id)
    }

    pub(crate) fn execute<A: Action>(&mut self, n: u128, at_ms: i64, action: &A) -> ActionId {
        self.try_execute(n, at_ms, action).expect("executes")
    }

    /// What is pending here.
    pub(crate) fn batch(&mut self) -> Option<SentBatch> {
        self.engine.next_batch(BatchId::from_uuid(Uuid::from_u128(1))).expect("reads")
    }

    /// What is pending here as the server sends it to others, numbered from `first`.
    pub(crate) fn accepted_by_server(&mut self, first: i64) -> Vec<LogRecord> {
        let batch = self.batch().expect("something is pending").batch;
        let accept = |(number, sent): (i64, synchrotron_core::wire::UploadRecord)| LogRecord {
            row_count: u32::try_from(sent.rows.len()).expect("few rows"),
            slices: vec![SliceTag::of(sent.id, &hall())],
            rows: sent.rows,
            record: ActionRecord {
                id: sent.id,
                clock: sent.clock,
                client_id: batch.client_id,
                user_id: user(self.client),
                server_ingest_id: Some(ServerIngestId::new(number)),
                trace_parent: None,
                body: sent.body,
            },
        };
        (first..).zip(batch.records).map(accept).collect()
    }

    pub(crate) fn integrate(&mut self, page: &FetchPage) -> Result<(), EngineError> {
        self.engine.integrate_page(page.clone()).map(drop)
    }

    pub(crate) fn cursor(&mut self) -> i64 {
        self.engine.cursors().expect("reads")[&hall()].get()
    }
}

/// A page with these records, which reaches the last of them.
pub(crate) fn page(records: Vec<LogRecord>) -> FetchPage {
    let newest = records.iter().filter_map(|record| record.record.server_ingest_id).max();
    let cursor = newest.map_or(Cursor::START, Cursor::through);
    FetchPage { epoch: epoch(), records, cursors: Cursors::from([(hall(), cursor)]), more: false }
}

/// Every row of every table of the file, the engine's own included, bit by bit.
pub(crate) fn dump(folder: &Path) -> Vec<String> {
    let connection = rusqlite::Connection::open(file(folder)).expect("opens");
    let mut names =
        connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name").expect("reads");
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).expect("reads").collect::<Result<_, _>>().expect("text");
    let mut all = Vec::new();
    for name in names {
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{name}\"")).expect("reads");
        let width = statement.column_count();
        let line = |row: &rusqlite::Row<'_>| -> rusqlite::Result<String> {
            let values: Vec<rusqlite::types::Value> =
                (0..width).map(|column| row.get(column)).collect::<Result<_, _>>()?;
            Ok(format!("{name} {values:?}"))
        };
        all.extend(statement.query_map([], line).expect("reads").map(|line| line.expect("any row can be printed")));
    }
    all.sort();
    all
}

/// The first lines that differ: a whole dump would tell nothing.
pub(crate) fn assert_same(actual: &[String], expected: &[String], what: &str) {
    let missing: Vec<_> = expected.iter().filter(|line| !actual.contains(line)).take(3).collect();
    let surplus: Vec<_> = actual.iter().filter(|line| !expected.contains(line)).take(3).collect();
    assert!(actual == expected, "{what}: missing {missing:#?}, surplus {surplus:#?}");
}

/// The newest clock that the file holds.
pub(crate) fn newest_clock(folder: &Path) -> i64 {
    let connection = rusqlite::Connection::open(file(folder)).expect("opens");
    let sql =
        "SELECT max((SELECT clock FROM client_sync_status), coalesce((SELECT max(clock) FROM action_records), 0))";
    connection.query_row(sql, [], |row| row.get(0)).expect("reads")
}

/// Nobody but actions writes application rows.
pub(crate) fn assert_closed(folder: &Path) {
    let mut store = open_store(folder, ALICE, SCHEMA).expect("opens");
    let txn = store.begin().expect("begins");
    txn.as_sql().execute("UPDATE seats SET holder = 'mallory'", &[]).expect_err("closed");
    drop(txn);
    let other = rusqlite::Connection::open(file(folder)).expect("opens");
    other.execute("UPDATE seats SET holder = 'mallory'", []).expect_err("closed to other programs");
}
