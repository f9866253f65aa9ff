//! A device's database file: opened, opened again after a crash, and read from outside for the checks.
//!
//! The checks read what is on disk through a connection of their own, not what the engine says about it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use synchrotron_core::engine::{Engine, Limits};
use synchrotron_core::model::{
    ActionId, AudienceKey, ClientId, Columns, Cursor, Cursors, Effect, Hlc, Patch, ReplayKey, RowId, RowKey, TableName,
    Value,
};
use synchrotron_core::network::memory::MemoryRow;
use synchrotron_core::store::{Durability, FaultSwitch, FaultyStore, Reader, Row, SqliteSettings, SqliteStore};
use tempfile::TempDir;
use uuid::Uuid;

use super::image::Image;
use crate::fleet::{Fleet, Member};
use crate::intent::DeviceEngine;
use crate::rows::Rows;

/// A record as it lies on disk.
#[derive(Debug, Clone)]
pub(crate) struct LocalRecord {
    pub(crate) id: ActionId,
    pub(crate) position: ReplayKey,
    pub(crate) number: Option<i64>,
    pub(crate) author: ClientId,
    pub(crate) is_action: bool,
    pub(crate) reason: Option<String>,
    pub(crate) rows: Vec<Patch>,
}

/// What lies on a device's disk, beside the app's rows.
#[derive(Debug, Default)]
pub(crate) struct LocalState {
    pub(crate) cursors: Cursors,
    /// Audiences that wait for a snapshot: their rows may be old.
    pub(crate) stale: BTreeSet<AudienceKey>,
    /// The newest position that a snapshot holds: nothing there or beneath can be undone.
    pub(crate) floor: Option<ReplayKey>,
    pub(crate) epoch: Option<Uuid>,
    pub(crate) records: BTreeMap<ActionId, LocalRecord>,
    /// Quarantined actions with their reasons.
    pub(crate) quarantined: BTreeMap<ActionId, String>,
    /// Whose rows the undo holds.
    pub(crate) undo_audiences: BTreeSet<AudienceKey>,
}

/// A device's disk.
pub(crate) struct Home {
    /// Who the device is, and all that it was before: a copy becomes another.
    pub(crate) client_id: ClientId,
    pub(crate) client_ids: BTreeSet<ClientId>,
    pub(crate) switch: FaultSwitch,
    settings: SqliteSettings,
    /// By table, the columns that travel.
    columns: BTreeMap<TableName, BTreeSet<String>>,
    /// Only a file that changes beneath it has none.
    reader: Option<Reader>,
    /// Whether the plan cuts the power.
    power_fails: bool,
    /// The file as it was before the newest commits that did not wait for the disk.
    synced: Option<Image>,
    /// Last, so that the file goes after everything that has it open.
    _folder: TempDir,
}

impl Home {
    /// Makes the file, and the engine on it.
    pub(crate) fn new(
        fleet: &Fleet,
        number: usize,
        member: &Member,
        version: u32,
        power_fails: bool,
    ) -> (Self, DeviceEngine) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path: PathBuf = folder.path().join("app.db");
        let client_id = ClientId::from_uuid(Uuid::from_u128(0xd000 + number as u128));
        let settings = SqliteSettings {
            path: path.clone(),
            schema: fleet.schema.clone(),
            tables: fleet.tables.clone(),
            user_id: member.user.clone(),
            new_client_id: client_id,
            durability: Durability::Normal,
            busy_timeout: Duration::from_secs(1),
        };
        let switch = FaultSwitch::default();
        let engine = engine(&settings, fleet, version, &switch);
        let reader = Reader::open(&path).expect("the file is there");
        let columns = fleet.tables.iter().map(|table| travelling_columns(&reader, table.name())).collect();
        (
            Self {
                client_id,
                client_ids: BTreeSet::from([client_id]),
                switch,
                settings,
                columns,
                reader: Some(reader),
                power_fails,
                synced: None,
                _folder: folder,
            },
            engine,
        )
    }

    /// Starts a new process on the file.
    pub(crate) fn open(&self, fleet: &Fleet, version: u32) -> DeviceEngine {
        engine(&self.settings, fleet, version, &self.switch)
    }

    /// To be called before each call of the engine.
    pub(crate) fn before_call(&mut self) {
        if self.power_fails && self.synced.is_none() {
            self.synced = Some(Image::of(&self.settings.path));
        }
    }

    /// To be called after it: what it synced, and all before that, is kept.
    pub(crate) fn after_call(&mut self) {
        if self.switch.take_synced() {
            self.synced = None;
        }
    }

    /// What a power cut does. The engine must be closed. Says whether anything was there to lose.
    pub(crate) fn lose_unsynced(&mut self) -> bool {
        let Some(image) = self.synced.take() else { return false };
        let path = &self.settings.path;
        let lost = Image::of(path) != image;
        self.reader = None;
        image.put(path);
        self.reader = Some(Reader::open(path).expect("the file is there"));
        lost
    }

    /// A plain store on the file, for checks. The engine's must be closed.
    pub(crate) fn store(&self) -> SqliteStore {
        SqliteStore::open(&self.settings).expect("the file was opened before")
    }

    pub(crate) fn client_id_on_disk(&self) -> ClientId {
        let status = self.query("SELECT client_id FROM client_sync_status").pop().expect("one row");
        ClientId::from_uuid(uuid(&status.columns(), "client_id"))
    }

    /// Moves with every commit to the file.
    pub(crate) fn commits(&self) -> i64 {
        let version = self.query("SELECT data_version FROM pragma_data_version").pop().expect("one row");
        integer(&version.columns(), "data_version").expect("a count")
    }

    /// The app's rows.
    pub(crate) fn rows(&self) -> Rows {
        self.rows_by(&|sql| self.query(sql))
    }

    /// The app's rows, read through any connection.
    pub(crate) fn rows_by(&self, query: &dyn Fn(&str) -> Vec<Row>) -> Rows {
        let mut rows = BTreeMap::new();
        for (table, columns) in &self.columns {
            for row in query(&format!("SELECT * FROM \"{}\"", table.as_str().replace('"', "\"\""))) {
                let mut values = row.columns();
                let row_id = RowId::new(text(&values, "id")).expect("tracked rows have ids");
                let audience_key = AudienceKey::new(text(&values, "audience_key")).expect("and an audience");
                values.retain(|column, _| columns.contains(column));
                rows.insert(RowKey { table: table.clone(), row_id }, MemoryRow { audience_key, columns: values });
            }
        }
        Rows(rows)
    }

    /// The sync tables.
    pub(crate) fn state(&self) -> LocalState {
        let mut state = LocalState::default();
        let epoch = self.query("SELECT epoch FROM client_sync_status").pop().map(|row| row.columns());
        state.epoch = epoch.filter(|columns| columns["epoch"] != Value::Null).map(|columns| uuid(&columns, "epoch"));
        for row in self.query("SELECT * FROM client_audiences") {
            let columns = row.columns();
            if integer(&columns, "stale") != Some(0) {
                state.stale.insert(audience(&columns));
            }
            if let Value::Bytes(floor) = &columns["floor"] {
                let floor: ReplayKey = rmp_serde::from_slice(floor).expect("a floor is a position");
                state.floor = state.floor.max(Some(floor));
            }
            state.cursors.insert(audience(&columns), Cursor::new(integer(&columns, "cursor").expect("a cursor")));
        }
        for row in self.query("SELECT * FROM action_records") {
            let record = local_record(&row.columns());
            state.records.insert(record.id, record);
        }
        for row in self.query("SELECT * FROM action_modified_rows ORDER BY action_id, sequence") {
            let columns = row.columns();
            let id = ActionId::from_uuid(uuid(&columns, "action_id"));
            if let Some(record) = state.records.get_mut(&id) {
                record.rows.push(patch(&columns));
            }
        }
        for row in self.query("SELECT id, reason FROM local_quarantined_actions") {
            let columns = row.columns();
            state.quarantined.insert(ActionId::from_uuid(uuid(&columns, "id")), text(&columns, "reason"));
        }
        let undo = self.query("SELECT DISTINCT audience_key FROM local_undo");
        state.undo_audiences = undo.iter().map(|row| audience(&row.columns())).collect();
        state
    }

    fn query(&self, sql: &str) -> Vec<Row> {
        let reader = self.reader.as_ref().expect("BUG: it is away only while the file changes");
        reader.query(sql, &[]).expect("the file can be read")
    }
}

fn engine(settings: &SqliteSettings, fleet: &Fleet, version: u32, switch: &FaultSwitch) -> DeviceEngine {
    let store = SqliteStore::open(settings).expect("the file can be opened");
    let store = FaultyStore::new(store, switch.clone());
    Engine::new(store, fleet.registry(version), &fleet.tables, Limits::default())
}

fn travelling_columns(reader: &Reader, table: &str) -> (TableName, BTreeSet<String>) {
    let sql = "SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0 AND name NOT IN ('id', 'audience_key')";
    let rows = reader.query(sql, &[Value::from(table)]).expect("the table is there");
    let names = rows.iter().map(|row| text(&row.columns(), "name")).collect();
    (TableName::new(table).expect("the name of a table"), names)
}

fn local_record(columns: &Columns) -> LocalRecord {
    LocalRecord {
        id: ActionId::from_uuid(uuid(columns, "id")),
        position: ReplayKey {
            clock: Hlc::from_packed(integer(columns, "position_clock").expect("a clock")),
            client_id: ClientId::from_uuid(uuid(columns, "position_client_id")),
            action_id: ActionId::from_uuid(uuid(columns, "position_action_id")),
        },
        number: integer(columns, "server_ingest_id"),
        author: ClientId::from_uuid(uuid(columns, "client_id")),
        is_action: columns["tag"] != Value::Null,
        reason: (columns["reason"] != Value::Null).then(|| text(columns, "reason")),
        rows: Vec::new(),
    }
}

fn patch(columns: &Columns) -> Patch {
    let set = match &columns["columns"] {
        Value::Bytes(packed) => rmp_serde::from_slice(packed).expect("columns are a MessagePack map"),
        _ => Columns::new(),
    };
    let effect = match text(columns, "operation").as_str() {
        "INSERT" => Effect::Insert(set),
        "UPDATE" => Effect::Update(set),
        "DELETE" => Effect::Delete,
        _ => Effect::Nothing,
    };
    Patch {
        sequence: u32::try_from(integer(columns, "sequence").expect("a sequence")).expect("a small one"),
        table: TableName::new(text(columns, "table_name")).expect("a table"),
        row_id: RowId::new(text(columns, "row_id")).expect("a row"),
        audience_key: audience(columns),
        effect,
    }
}

fn audience(columns: &Columns) -> AudienceKey {
    AudienceKey::new(text(columns, "audience_key")).expect("an audience")
}

fn text(columns: &Columns, name: &str) -> String {
    match &columns[name] {
        Value::Text(text) => text.clone(),
        other => format!("{other:?}"),
    }
}

fn integer(columns: &Columns, name: &str) -> Option<i64> {
    match &columns[name] {
        Value::Integer(number) => Some(*number),
        _ => None,
    }
}

fn uuid(columns: &Columns, name: &str) -> Uuid {
    match &columns[name] {
        Value::Bytes(bytes) => Uuid::from_slice(bytes).expect("16 bytes"),
        _ => Uuid::nil(),
    }
}
