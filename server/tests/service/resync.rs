//! Whole clients behind a compaction, and after the database was restored from a backup.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgPoolOptions};
use synchrotron_server::epoch;
use synchrotron_server::service::Service;
use synchrotron_server::settings::DatabaseUrl;
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::clients::App;
use crate::compaction::{age, compact, open};
use crate::fixture::Theatre;

/// HR-04, RB-03: a device comes back after the retention with work of its own, some of it older than what is gone. It takes
/// a snapshot, and its work goes up.
#[tokio::test]
async fn rb_03_hr_04_a_device_behind_the_compaction_takes_a_snapshot_and_keeps_its_work() {
    let (theatre, folder) = (open().await, tempfile::tempdir().expect("a folder"));
    let (alice, bob) = (App::open(folder.path(), "alice").await, App::open(folder.path(), "bob").await);
    let service = &theatre.service;
    bob.put("A1").await;
    bob.sync(service).await;
    alice.sync(service).await;
    alice.book("A1").await;
    alice.put("A2").await;
    bob.book("A1").await;
    for seat in ["B1", "B2", "B3"] {
        bob.put(seat).await;
    }
    bob.sync(service).await;
    age(&theatre, 1_000).await;
    assert_eq!(compact(&theatre).await.records, 5);
    alice.book("A2").await;
    for app in [&alice, &bob] {
        app.sync(service).await;
        assert_eq!(app.pending(), 0);
        assert_eq!(app.seats().await, "A1:bob A2:alice B1:- B2:- B3:-", "the first to arrive keeps A1");
        app.assert_equal(service).await;
    }
    assert_eq!(alice.client.status().borrow().quarantined, 0);
}

/// A device that is away for no longer than the retention never notices.
#[tokio::test]
async fn a_device_that_has_everything_goes_on_behind_the_compaction() {
    let (theatre, folder) = (open().await, tempfile::tempdir().expect("a folder"));
    let (alice, bob) = (App::open(folder.path(), "alice").await, App::open(folder.path(), "bob").await);
    let service = &theatre.service;
    alice.put("A1").await;
    alice.sync(service).await;
    bob.sync(service).await;
    age(&theatre, 1_000).await;
    compact(&theatre).await;
    bob.book("A1").await;
    bob.sync(service).await;
    alice.book("A1").await;
    alice.sync(service).await;
    assert_eq!(theatre.holder("A1").await.as_deref(), Some("bob"));
    for app in [&alice, &bob] {
        app.sync(service).await;
        app.assert_equal(service).await;
    }
}

/// A copy of the database as it is now, as a backup would be.
async fn back_up(theatre: &Theatre) -> String {
    let postgres = synchrotron_testkit::postgres().await.expect("postgres");
    let name = theatre.scalar("SELECT current_database()::text").await.expect("a name");
    let backup = format!("backup_{}", Uuid::new_v4().simple());
    let copied = wait_for("a moment without connections", Duration::from_secs(30), async || {
        let mut conn = PgConnection::connect(postgres.url()).await.expect("connects");
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        conn.execute(AssertSqlSafe(end)).await.expect("ends");
        conn.execute(AssertSqlSafe(format!("CREATE DATABASE {backup} TEMPLATE {name}"))).await.ok()
    });
    copied.await.expect("copies");
    theatre.service.settings().database_url.as_str().replace(&name, &backup)
}

async fn restored(theatre: &Theatre, url: &str) -> (Service, PgPool) {
    let mut settings = theatre.service.settings().clone();
    settings.database_url = DatabaseUrl::new(url);
    let service = Service::connect(&settings).await.expect("starts");
    (service, PgPoolOptions::new().max_connections(1).connect(url).await.expect("connects"))
}

/// What two devices did before and after a backup; what they did after it, the backup does not have.
async fn before_and_after(theatre: &Theatre, alice: &App, bob: &App) -> String {
    let service = &theatre.service;
    alice.put("A1").await;
    alice.sync(service).await;
    bob.put("B1").await;
    bob.sync(service).await;
    let backup = back_up(theatre).await;
    alice.sync(service).await;
    alice.book("B1").await;
    alice.sync(service).await;
    for seat in ["B2", "B3", "B4"] {
        bob.put(seat).await;
    }
    bob.book("A1").await;
    bob.sync(service).await;
    alice.sync(service).await;
    assert_eq!(alice.seats().await, "A1:bob B1:alice B2:- B3:- B4:-");
    alice.put("A2").await;
    backup
}

/// The runbook of `docs/restore.md`: devices upload again what the backup lost, once, and all end with the same rows.
#[tokio::test]
async fn u28_after_a_restore_and_a_new_epoch_nothing_is_lost_or_doubled() {
    let (theatre, folder) = (open().await, tempfile::tempdir().expect("a folder"));
    let (alice, bob) = (App::open(folder.path(), "alice").await, App::open(folder.path(), "bob").await);
    let backup = before_and_after(&theatre, &alice, &bob).await;
    let (service, pool) = restored(&theatre, &backup).await;
    let change = epoch::begin_new(&service).await.expect("begins");
    assert_ne!(change.ended, change.begun);
    for app in [&alice, &bob, &alice, &bob, &alice] {
        app.sync(&service).await;
    }
    for app in [&alice, &bob] {
        assert_eq!(app.seats().await, "A1:bob A2:- B1:alice B2:- B3:- B4:-");
        assert_eq!((app.pending(), app.client.status().borrow().quarantined), (0, 0));
        app.assert_equal(&service).await;
    }
    let log = "SELECT count(*) || ' ' || count(DISTINCT args) FROM synchrotron.action_records WHERE tag IS NOT NULL";
    let records: String =
        sqlx_core::query_scalar::query_scalar::<sqlx_postgres::Postgres, _>(log).fetch_one(&pool).await.expect("reads");
    assert_eq!(records, "8 8", "each action is there once");
}

/// Without a new epoch nobody uploads again what the backup lost; but a device that knows more than the server notices, and
/// does not keep rows that the server lost.
#[tokio::test]
async fn u28_without_a_new_epoch_a_device_above_the_head_takes_the_servers_rows() {
    let (theatre, folder) = (open().await, tempfile::tempdir().expect("a folder"));
    let (alice, bob) = (App::open(folder.path(), "alice").await, App::open(folder.path(), "bob").await);
    let backup = before_and_after(&theatre, &alice, &bob).await;
    let (service, _) = restored(&theatre, &backup).await;
    for app in [&bob, &alice, &bob] {
        app.sync(&service).await;
    }
    for app in [&alice, &bob] {
        assert_eq!(app.seats().await, "A1:- A2:- B1:-", "what the backup has, and what was pending");
        app.assert_equal(&service).await;
    }
}
