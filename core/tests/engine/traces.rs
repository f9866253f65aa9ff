//! The trace of an action on its own device: kept, sent, and in nobody's way.

use rusqlite::Connection;
use synchrotron_core::engine::ExecuteInput;
use synchrotron_core::model::TraceParent;
use synchrotron_core::store::SqliteStore;

use crate::support::{Device, NOW, SCHEMA, engine_on, settings, sql, tables};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn traced_list(device: &mut Device, name: &str) {
    let trace_parent = Some(TRACE.parse().expect("well-formed"));
    let input = ExecuteInput { action_id: device.next_action_id(), now_ms: NOW, trace_parent };
    let insert = format!("INSERT INTO lists VALUES ('{name}', '{name}', 'p')");
    device.engine.execute(&sql(&[&insert]), input).expect("runs");
}

/// The traces of what would be uploaded now.
fn sent(device: &mut Device) -> Vec<Option<String>> {
    let records = device.batch().expect("something is pending").batch.records;
    records.iter().map(|record| record.trace_parent.as_ref().map(TraceParent::to_string)).collect()
}

/// The same file, opened anew.
fn reopen(device: &mut Device) {
    device.engine = engine_on(SqliteStore::open(&settings(&device.path(), SCHEMA, tables())).expect("opens"));
}

#[test]
fn a_trace_survives_a_restart_and_travels_with_its_action_alone() {
    let mut device = Device::new();
    traced_list(&mut device, "a");
    device.run(&["INSERT INTO lists VALUES ('b', 'b', 'p')"]).expect("runs");
    reopen(&mut device);
    assert_eq!(sent(&mut device), [Some(TRACE.to_owned()), None]);
}

/// A file from before records had traces holds work that is nowhere else: it is brought up to date.
#[test]
fn a_file_of_the_version_before_opens_with_its_pending_work() {
    let mut device = Device::new();
    device.run(&["INSERT INTO lists VALUES ('a', 'a', 'p')"]).expect("runs");
    let old = Connection::open(device.path()).expect("opens");
    let back = "ALTER TABLE action_records DROP COLUMN trace_parent; UPDATE client_sync_status SET schema_version = 3";
    old.execute_batch(back).expect("was like that");
    drop(old);

    reopen(&mut device);
    traced_list(&mut device, "b");
    reopen(&mut device);
    assert_eq!(device.count("lists"), 2);
    assert_eq!(sent(&mut device), [None, Some(TRACE.to_owned())]);
}

#[test]
fn a_stored_trace_that_is_none_is_dropped_and_its_action_is_not() {
    let mut device = Device::new();
    traced_list(&mut device, "a");
    let file = Connection::open(device.path()).expect("opens");
    file.execute_batch("UPDATE action_records SET trace_parent = 'nonsense'").expect("writes");
    assert_eq!(sent(&mut device), [None]);
}
