//! Several servers, servers that break, and servers that run by themselves.

use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use synchrotron_core::model::TableName;
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;
use synchrotron_server::{Server, ServerSettings};
use synchrotron_testkit::wait_for;

use super::told;
use crate::fixture::{Theatre, hold, seat};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_servers_publish_each_write_once() {
    let theatre = Theatre::open_with("", &[], |settings| settings.sql_writes.batch_rows_max = 5).await;
    let settings = theatre.service.settings();
    let many = "INSERT INTO seats SELECT 'S' || n, 'l', NULL, 'project:p' FROM generate_series(1, 100) n";
    theatre.execute(many).await;
    let servers = (0..3).map(|_| Service::connect(settings));
    let servers = futures::future::join_all(servers).await;
    let tasks: Vec<_> = servers
        .into_iter()
        .map(|server| {
            let (server, pool) = (server.expect("starts"), theatre.pool.clone());
            tokio::spawn(async move {
                let left = "SELECT EXISTS (SELECT FROM synchrotron.staged_writes)";
                let mut count = 0;
                while sqlx_core::query_scalar::query_scalar::<sqlx_postgres::Postgres, bool>(left)
                    .fetch_one(&pool)
                    .await
                    .expect("reads")
                {
                    count += server.pick_up_sql_writes().await.expect("picks up");
                }
                count
            })
        })
        .collect();
    let counts = futures::future::join_all(tasks).await.into_iter().map(|count| count.expect("no panic"));
    assert_eq!(counts.sum::<usize>(), 100);
    assert_eq!(told(&theatre.device("bob").catch_up().await).len(), 100);
    theatre.assert_in_step(&["bob"]).await;
}

#[tokio::test]
async fn a_pick_up_that_breaks_off_loses_nothing() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, vec![seat("A1")])]).await;
    theatre.execute("UPDATE seats SET holder = 'job'").await;
    let mut holder = theatre.pool.acquire().await.expect("connects");
    let mut held = holder.begin().await.expect("begins");
    held.execute("SELECT FROM synchrotron.audience_heads WHERE audience_key = 'project:p' FOR UPDATE")
        .await
        .expect("locks");
    let service = theatre.service.clone();
    let broken = tokio::spawn(async move { service.pick_up_sql_writes().await });
    let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                 AND wait_event_type = 'Lock' AND query LIKE '/* gate.lock */%'";
    let waiting = wait_for("it to have taken the writes", PATIENCE, async || {
        (theatre.scalar(waits).await.as_deref() == Some("1")).then_some(())
    });
    waiting.await.expect("waits for the head");
    broken.abort();
    assert!(broken.await.expect_err("aborted").is_cancelled());
    held.rollback().await.expect("lets go");
    let published = wait_for("the write", PATIENCE, async || (theatre.pick_up().await == 1).then_some(()));
    published.await.expect("it is still there");
    assert_eq!(told(&alice.catch_up().await), ["A1 UPDATE holder"]);
    assert_eq!(theatre.pick_up().await, 0);
    theatre.assert_in_step(&["alice", "bob"]).await;
}

/// A server looks by itself, at once after its own commits.
#[tokio::test]
async fn a_running_server_publishes_by_itself() {
    let sql = "CREATE TABLE rows (id text PRIMARY KEY, audience_key text, seat text REFERENCES seats ON DELETE CASCADE); \
        GRANT ALL ON rows TO synchrotron_user; CREATE TABLE lamps (id text PRIMARY KEY, audience_key text)";
    let theatre = Theatre::open_with(sql, &["rows"], |_| {}).await;
    let mut core = Settings { ..theatre.service.settings().clone() };
    core.sql_writes.poll_every = Duration::from_millis(50);
    let listen = ([127, 0, 0, 1], 0).into();
    let polls = Server::start(ServerSettings { core: core.clone(), http_listen: listen, nats: None }).await;
    theatre.execute("INSERT INTO seats VALUES ('A1', 'l', NULL, 'project:p')").await;
    theatre.execute("INSERT INTO rows VALUES ('r', 'project:p', 'A1')").await;
    let mut bob = theatre.device("bob");
    let heard = async |device: &mut crate::fixture::Device, what: &str| {
        let heard = wait_for(what, PATIENCE, async || {
            told(&device.catch_up().await).iter().any(|told| told == what).then_some(())
        });
        heard.await.expect("it is published");
    };
    heard(&mut bob, "r INSERT").await;
    polls.expect("starts").shutdown().await;

    core.sql_writes.poll_every = Duration::from_secs(3_600);
    let started = Server::start(ServerSettings { core, http_listen: listen, nats: None }).await.expect("starts");
    bob.service = started.service().clone();
    bob.sync(vec![bob.action(super::now_ms() + 1_000, vec![crate::fixture::remove("A1")])]).await;
    heard(&mut bob, "r DELETE").await;
    started.shutdown().await;
}

/// Triggers are where they should be, and only there, whatever they were before.
#[tokio::test]
async fn triggers_follow_the_settings() {
    let theatre = Theatre::open_with(
        "CREATE TABLE \"odd \"\"name\" (id text PRIMARY KEY, audience_key text) PARTITION BY LIST (id); \
         CREATE TABLE \"one\" PARTITION OF \"odd \"\"name\" FOR VALUES IN ('1'); \
         CREATE TABLE \"rest\" PARTITION OF \"odd \"\"name\" DEFAULT; \
         GRANT ALL ON \"odd \"\"name\" TO synchrotron_user",
        &["odd \"name"],
        |_| {},
    )
    .await;
    let on = "SELECT string_agg(tgrelid::regclass::text, ' ' ORDER BY tgrelid::regclass::text) FROM pg_trigger \
              WHERE tgname = 'synchrotron_capture' AND tgparentid = 0";
    assert_eq!(theatre.scalar(on).await.as_deref(), Some("\"odd \"\"name\" notes seats"));
    theatre.execute("INSERT INTO \"odd \"\"name\" VALUES ('1', 'project:p'), ('2', 'project:p')").await;
    theatre.execute("UPDATE \"odd \"\"name\" SET id = '3' WHERE id = '1'").await;
    theatre.pick_up().await;
    assert_eq!(theatre.assert_in_step(&["bob"]).await.len(), 2, "by the name of the whole, not of the partition");
    theatre.execute("TRUNCATE \"odd \"\"name\"").await;
    theatre.pick_up().await;
    assert!(theatre.assert_in_step(&["bob"]).await.is_empty());

    let state =
        "SELECT string_agg(oid::text || xmin::text, ' ' ORDER BY oid) FROM pg_trigger WHERE tgname LIKE 'synchrotron%'";
    let before = theatre.scalar(state).await;
    let settings = theatre.service.settings().clone();
    Service::connect(&settings).await.expect("starts again");
    assert_eq!(theatre.scalar(state).await, before, "what is right is not touched");

    theatre.execute("ALTER TABLE seats DISABLE TRIGGER synchrotron_capture").await;
    theatre.execute("INSERT INTO notes (id, owner) VALUES ('n', 'alice')").await;
    let seats = Settings { tables: vec![TableName::new("seats").expect("a name")], ..settings };
    Service::connect(&seats).await.expect("starts with fewer tables");
    assert_eq!(theatre.scalar(on).await.as_deref(), Some("seats"));
    assert_eq!(theatre.count("synchrotron.staged_writes").await, 0, "of a table that is not tracked any more");
    theatre.execute("INSERT INTO seats VALUES ('S', 'l', 'h', 'project:p')").await;
    assert_eq!(theatre.pick_up().await, 1, "enabled again");

    let mut off = seats;
    off.sql_writes.enabled = false;
    Service::connect(&off).await.expect("starts without");
    assert_eq!(theatre.scalar(on).await, None);
    theatre.execute("UPDATE seats SET holder = 'unseen'").await;
    assert_eq!(theatre.pick_up().await, 0);
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(super::now_ms() + 1_000, vec![hold("S", Some("alice"))])]).await;
}
