//! The SQLite store passes the conformance suite.

use std::time::Duration;

use synchrotron_core::store::suite::{self, StoreFixture};
use synchrotron_core::store::{Durability, SqliteSettings, SqliteStore};
use tempfile::TempDir;

struct Fixture(TempDir);

impl StoreFixture for Fixture {
    type Store = SqliteStore;

    fn open(&self) -> SqliteStore {
        SqliteStore::open(&SqliteSettings {
            path: self.0.path().join("suite.db"),
            schema: suite::SCHEMA.to_owned(),
            tables: suite::tables(),
            user_id: suite::user(),
            new_client_id: suite::client(),
            durability: Durability::Normal,
            busy_timeout: Duration::from_secs(5),
        })
        .expect("opens")
    }
}

synchrotron_core::store_suite!(Fixture(tempfile::tempdir().expect("a folder")));
