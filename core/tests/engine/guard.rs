//! CAP-14 to CAP-20: nobody writes tracked tables but actions; everybody may read.

use rusqlite::Connection;
use synchrotron_core::store::Reader;

use crate::support::Device;

const INSERT: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')";

#[test]
fn any_other_program_fails_to_write() {
    let mut device = Device::new();
    device.run(&[INSERT]).expect("an action may");
    let other = Connection::open(device.path()).expect("opens");
    for write in [
        "INSERT INTO lists (id, name, audience_key) VALUES ('m', 'two', 'p')",
        "UPDATE lists SET name = 'x'",
        "DELETE FROM lists",
        "INSERT OR REPLACE INTO lists (id, name, audience_key) VALUES ('l', 'x', 'p')",
    ] {
        let error = other.execute(write, []).expect_err(write);
        assert!(error.to_string().contains("no such function: synchrotron_"), "{write}: {error}");
    }
    assert_eq!(device.rows("SELECT name FROM lists")[0]["name"], "one".into());
}

#[test]
fn readers_see_the_newest_commit_and_cannot_write() {
    let mut device = Device::new();
    let reader = Reader::open(&device.path()).expect("opens");
    assert_eq!(reader.query("SELECT * FROM lists", &[]).expect("reads").len(), 0);
    device.run(&[INSERT]).expect("runs");
    assert_eq!(reader.query("SELECT * FROM lists", &[]).expect("reads").len(), 1);
    reader.query("DELETE FROM lists", &[]).expect_err("read-only");
}

#[test]
fn a_reader_in_a_transaction_does_not_block_the_writer() {
    let mut device = Device::new();
    let reader = Connection::open(device.path()).expect("opens");
    reader.execute_batch("BEGIN").expect("begins");
    let before: i64 = reader.query_row("SELECT count(*) FROM lists", [], |row| row.get(0)).expect("reads");
    device.run(&[INSERT]).expect("the writer goes on");
    let still: i64 = reader.query_row("SELECT count(*) FROM lists", [], |row| row.get(0)).expect("reads");
    assert_eq!((before, still), (0, 0), "one snapshot");
}
