//! Plain SQL writes reach devices.

mod beneath;
mod captured;
mod concurrent;
mod model;
mod races;
mod servers;

use std::time::{SystemTime, UNIX_EPOCH};

use synchrotron_core::model::{ClientId, Effect, Patch, RecordBody};
use synchrotron_core::wire::LogRecord;
use uuid::Uuid;

/// The server's own device.
fn nobody() -> ClientId {
    ClientId::from_uuid(Uuid::nil())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the end")
}

/// The effects of the server's own records, in their order.
fn published(records: &[LogRecord]) -> Vec<&Patch> {
    records.iter().filter(|record| record.record.client_id == nobody()).flat_map(|record| &record.rows).collect()
}

/// Row and operation of each effect, with the columns that an update sets.
fn told(records: &[LogRecord]) -> Vec<String> {
    let tell = |patch: &Patch| match &patch.effect {
        Effect::Update(columns) => {
            format!("{} UPDATE {}", patch.row_id, columns.keys().cloned().collect::<Vec<_>>().join(","))
        }
        effect => format!("{} {}", patch.row_id, effect.operation().as_str()),
    };
    published(records).into_iter().map(tell).collect()
}

fn tag(record: &LogRecord) -> &str {
    match &record.record.body {
        RecordBody::Action { tag, .. } => tag.as_str(),
        RecordBody::Correction { .. } => "a correction",
    }
}
