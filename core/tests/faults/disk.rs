//! U29: the disk is full, busy, read-only or damaged: an error that says which, no partial state, and local work goes on.

use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use synchrotron_core::engine::{EngineError, ExecuteError};
use synchrotron_core::model::ServerIngestId;
use synchrotron_core::store::{Reader, StoreError};
use synchrotron_core::wire::Outcome;

use crate::replays::{SEATS, Standoff, large_arrivals, standoff};
use crate::world::{ALICE, Book, Device, NOW, SCHEMA, assert_closed, assert_same, book, dump, file, open_store};

fn overwrite(folder: &Path, from: u64, bytes: &[u8]) {
    let mut file = std::fs::OpenOptions::new().write(true).open(file(folder)).expect("opens");
    file.seek(SeekFrom::Start(from)).expect("seeks");
    file.write_all(bytes).expect("writes");
}

/// A booking with a scan that does not fit any more.
fn large() -> Book {
    Book { scan_bytes: 1 << 20, ..book(16, "large") }
}

#[test]
fn u29_a_full_disk_is_named_keeps_nothing_and_ends_when_there_is_space() {
    let Standoff { folder, arrivals } = standoff();
    let before = dump(folder.path());
    // The limit counts for this connection, as a full disk would: a few pages are left.
    let pages = rusqlite::Connection::open(file(folder.path()))
        .and_then(|file| file.query_row("SELECT page_count FROM pragma_page_count", [], |row| row.get::<_, i64>(0)))
        .expect("reads");
    let schema = format!("{SCHEMA} PRAGMA max_page_count = {};", pages + 4);
    let mut alice = Device::on(open_store(folder.path(), ALICE, &schema).expect("opens"), ALICE);
    let error = alice.try_execute(50, 500, &large()).expect_err("does not fit");
    assert_eq!(error, ExecuteError::Store(StoreError::Full));
    assert_same(&dump(folder.path()), &before, "after an execution that did not fit");
    assert_eq!(alice.engine.pending_count().expect("reads go on"), 10);
    alice.execute(51, 501, &book(17, "small"));
    drop(alice);
    assert_closed(folder.path());
    let with_small = dump(folder.path());

    let mut alice = Device::on(open_store(folder.path(), ALICE, &schema).expect("opens"), ALICE);
    let error = alice.integrate(&large_arrivals()).expect_err("does not fit");
    assert_eq!(error, EngineError::Store(StoreError::Full));
    assert_same(&dump(folder.path()), &with_small, "after an integration that did not fit");
    drop(alice);

    let mut alice = Device::open(folder.path(), ALICE);
    alice.execute(52, 502, &large());
    alice.integrate(&arrivals).expect("there is space again");
    assert_eq!(alice.cursor(), 11);
}

/// The server gives again what others did. What became of this device's own, the app was told.
#[test]
fn what_may_decide_something_of_this_devices_own_is_synced_and_nothing_else_that_arrives() {
    let Standoff { folder, arrivals } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    alice.integrate(&arrivals).expect("integrates");
    assert!(alice.switch.take_synced(), "beneath what is pending");
    let fresh = tempfile::tempdir().expect("a folder");
    let mut other = Device::open(fresh.path(), ALICE);
    other.begin_session();
    assert!(other.switch.take_synced(), "a session is kept");
    other.integrate(&arrivals).expect("integrates");
    assert!(!other.switch.take_synced(), "nothing is pending");
}

#[test]
fn u29_a_busy_database_is_named_and_waited_for() {
    let Standoff { folder, arrivals } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let sent = alice.batch().expect("pending");
    let ids = sent.batch.records.iter().map(|record| record.id).zip((20..).map(ServerIngestId::new)).collect();
    let outcome = Outcome::Accepted { ids };
    let other = rusqlite::Connection::open(file(folder.path())).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("takes the write lock");
    assert_eq!(alice.try_execute(50, 500, &book(16, "x")), Err(ExecuteError::Store(StoreError::Busy)));
    assert_eq!(alice.integrate(&arrivals), Err(EngineError::Store(StoreError::Busy)));
    assert_eq!(alice.engine.conclude(&sent, &outcome, NOW), Err(EngineError::Store(StoreError::Busy)));
    let seats =
        Reader::open(&file(folder.path())).expect("opens").query("SELECT * FROM seats", &[]).expect("reads go on");
    assert_eq!(seats.len(), SEATS);
    other.execute_batch("COMMIT").expect("lets go");
    alice.engine.conclude(&sent, &outcome, NOW).expect("concludes");
    alice.execute(50, 500, &book(16, "x"));
}

#[test]
fn u29_a_read_only_database_is_named() {
    let Standoff { folder, .. } = standoff();
    let before = dump(folder.path());
    // A write version that SQLite does not know: it reads the file and refuses to write it, whoever asks.
    overwrite(folder.path(), 18, &[9]);
    assert_eq!(open_store(folder.path(), ALICE, SCHEMA).map(drop), Err(StoreError::ReadOnly));
    overwrite(folder.path(), 18, &[2]);
    assert_same(&dump(folder.path()), &before, "nothing was written");
    Device::open(folder.path(), ALICE).execute(50, 500, &book(16, "x"));
}

#[test]
fn u29_a_damaged_file_is_named() {
    let Standoff { folder, .. } = standoff();
    let intact = std::fs::read(file(folder.path())).expect("reads");
    overwrite(folder.path(), 0, b"This is no database");
    assert_eq!(open_store(folder.path(), ALICE, SCHEMA).map(drop), Err(StoreError::Corrupt));

    // Everything but the schema's own page: whichever step meets it first says so.
    std::fs::write(file(folder.path()), &intact).expect("writes");
    overwrite(folder.path(), 4096, &vec![0xff; intact.len() - 4096]);
    let met = open_store(folder.path(), ALICE, SCHEMA)
        .map_err(ExecuteError::Store)
        .and_then(|store| Device::on(store, ALICE).try_execute(50, 500, &book(16, "x")));
    assert_eq!(met, Err(ExecuteError::Store(StoreError::Corrupt)));

    std::fs::write(file(folder.path()), &intact).expect("writes");
    Device::open(folder.path(), ALICE).execute(50, 500, &book(16, "the file is back"));
}

#[test]
fn u29_a_database_that_cannot_be_opened_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(file(folder.path())).expect("a folder where the file should be");
    let error = open_store(folder.path(), ALICE, SCHEMA).map(drop).expect_err("is a folder");
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}
