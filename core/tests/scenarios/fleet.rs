//! A world for stories: one server in this process, devices on real SQLite files, and one clock that a test moves.
//!
//! Time passes by one millisecond with every executed action, wherever it is executed; so actions are in the order in which
//! the story tells them, and what is uploaded later than it was executed arrives late.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use synchrotron_core::model::{
    ActionId, AudienceKey, Columns, Cursor, Effect, Epoch, Patch, RecordBody, RowKey, TableName, UserId, Value,
};
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::wire::LogRecord;
use tempfile::TempDir;
use uuid::Uuid;

use crate::device::Device;

/// The audience that every device's user is in.
pub(crate) const SHARED: &str = "shared";

/// When every story begins.
pub(crate) const BEGIN_MS: i64 = 1_700_000_000_000;

/// A server, and what devices need to be made.
pub(crate) struct World {
    pub(crate) server: MemoryServer,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(AtomicI64::new(BEGIN_MS));
        let server = MemoryServer::new(epoch(1), BEGIN_MS);
        let read = Arc::clone(&clock);
        server.set_clock(move || read.load(Ordering::SeqCst));
        Self { server, clock, folder: tempfile::tempdir().expect("a temporary folder") }
    }

    /// A device of a user of the same name, who is in [`SHARED`] and in an audience of its own.
    pub(crate) fn device(&self, name: &'static str) -> Device {
        self.device_in(name, &[SHARED])
    }

    /// Devices of one user each.
    pub(crate) fn devices<const N: usize>(&self, names: [&'static str; N]) -> [Device; N] {
        names.map(|name| self.device(name))
    }

    /// A device of a user of the same name, who is in these audiences and in one of its own.
    pub(crate) fn device_in(&self, name: &'static str, audiences: &[&str]) -> Device {
        let own = format!("user:{name}");
        audiences.iter().copied().chain([own.as_str()]).for_each(|audience| self.allow(name, audience));
        self.device_of(name, name)
    }

    /// A device of this user, with its session begun.
    pub(crate) fn device_of(&self, user: &str, name: &'static str) -> Device {
        let mut device = Device::open(self, user, name, &[]);
        device.begin_session().expect("the server knows the user");
        device
    }

    pub(crate) fn allow(&self, user: &str, audience: &str) {
        self.server.allow(&user_id(user), &audience_key(audience));
    }

    pub(crate) fn revoke(&self, user: &str, audience: &str) {
        self.server.revoke(&user_id(user), &audience_key(audience));
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Lets time pass for everybody.
    pub(crate) fn pass_ms(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    /// Compacts the server's log through this number.
    pub(crate) fn compact(&self, through: i64) {
        self.server.compact(Cursor::new(through));
    }

    /// The server comes back as it was at this number, with another history.
    pub(crate) fn restore(&self, history: u128, through: i64) {
        self.server.restore(epoch(history), Cursor::new(through));
    }

    /// How many records the server has accepted.
    pub(crate) fn accepted(&self) -> i64 {
        i64::try_from(self.server.log().len()).expect("a short log")
    }

    /// The ids of the server's log, in order of arrival.
    pub(crate) fn logged(&self) -> Vec<ActionId> {
        self.server.log().into_iter().map(|logged| logged.record.id).collect()
    }

    /// The corrections that the server has, in order of arrival.
    pub(crate) fn corrections(&self) -> Vec<LogRecord> {
        let is_correction = |logged: &LogRecord| matches!(logged.record.body, RecordBody::Correction { .. });
        self.server.log().into_iter().filter(is_correction).collect()
    }

    /// One column of one of the server's rows; `None` if the row is not there.
    pub(crate) fn server_value(&self, table: &str, row: &str, column: &str) -> Option<Value> {
        let rows = self.server.rows(&TableName::new(table).expect("a name"));
        rows.iter().find(|(id, _)| id.as_str() == row).map(|(_, row)| row.columns[column].clone())
    }

    /// Syncs everybody until nothing moves any more, then checks the promises.
    pub(crate) fn settle(&self, devices: &mut [&mut Device]) {
        for _round in 0..20 {
            let before = self.server.log().len();
            devices.iter_mut().for_each(|device| drop(device.sync()));
            if self.server.log().len() == before && devices.iter_mut().all(|device| device.pending().is_empty()) {
                return self.check_promises(devices);
            }
        }
        panic!("no fixed point in 20 rounds");
    }

    /// Every executed action is in the log or in quarantine; every device shows exactly what its user may see.
    pub(crate) fn check_promises(&self, devices: &mut [&mut Device]) {
        let logged = self.logged();
        for device in devices {
            let quarantined: Vec<ActionId> = device.quarantined().iter().map(|quarantined| quarantined.id).collect();
            for action in &device.executed {
                let found = logged.contains(action) || quarantined.contains(action);
                assert!(found, "{action} of {} is neither in the log nor in quarantine", device.name);
            }
            let visible = self.server.rows_visible_to(&device.user);
            let truth: BTreeMap<RowKey, Columns> = visible.into_iter().map(|(key, row)| (key, row.columns)).collect();
            assert_eq!(device.all_rows(), truth, "{} shows other rows than its user may see", device.name);
        }
    }
}

pub(crate) fn epoch(number: u128) -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(number))
}

pub(crate) fn user_id(user: &str) -> UserId {
    UserId::new(user).expect("not empty")
}

pub(crate) fn audience_key(audience: &str) -> AudienceKey {
    AudienceKey::new(audience).expect("not empty")
}

/// `OPERATION table.row {column='value', …}` for each patch, times left out.
pub(crate) fn story(patches: &[Patch]) -> Vec<String> {
    patches.iter().map(told).collect()
}

fn told(patch: &Patch) -> String {
    let row = format!("{} {}.{}", patch.effect.operation().as_str(), patch.table, patch.row_id);
    match &patch.effect {
        Effect::Insert(columns) | Effect::Update(columns) => {
            let told: Vec<String> = columns
                .iter()
                .filter(|(name, _)| *name != "updated_at")
                .map(|(name, value)| pair(name, value))
                .collect();
            format!("{row} {{{}}}", told.join(", "))
        }
        Effect::Delete | Effect::Nothing => row,
    }
}

fn pair(name: &str, value: &Value) -> String {
    match value {
        Value::Text(text) | Value::Json(text) => format!("{name}={text}"),
        other => format!("{name}={other:?}"),
    }
}
