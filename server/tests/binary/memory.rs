//! What a large snapshot costs the process that serves it.
#![cfg(target_os = "linux")]

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::model::{AudienceKey, ClientId, UserId};
use synchrotron_core::network::{Network, StaticToken};
use synchrotron_core::wire::{SessionRequest, SnapshotPosition, SnapshotRequest};
use synchrotron_http::HttpNetwork;
use synchrotron_server::auth::mint;
use synchrotron_server::settings::Secret;
use synchrotron_testkit::free_port;
use uuid::Uuid;

use crate::database::Database;
use crate::process::{Running, SECRET};

const ROWS: u64 = 100_000;

/// Two devices take the same large audience at the same time, and the process holds little of it at any moment.
#[tokio::test]
async fn boot_06_a_hundred_thousand_rows_pass_through_little_memory() {
    let mut database = Database::create().await;
    database
        .execute(
            "INSERT INTO members VALUES ('alice', 'all');
             INSERT INTO notes SELECT 'note ' || n, 'project:all', repeat(md5(n::text), 4)
                 FROM generate_series(1, 100000) n;",
        )
        .await;
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DATABASE_URL", database.url.as_str()),
        ("SYNCHROTRON_LISTEN", &address),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", SECRET),
    ];
    let server = Running::start(&["serve"], &environment);
    server.ready(&address).await;
    let before = peak_kib(&server);
    let taken = tokio::join!(take_snapshot(&address), take_snapshot(&address));
    assert_eq!(taken, (ROWS, ROWS));
    let held = peak_kib(&server) - before;
    // All rows of both devices as the process holds them are more than 100 MiB.
    assert!(held < 40 << 10, "{held} KiB more at its peak");
}

/// The most that the process ever held, as Linux tells it.
fn peak_kib(server: &Running) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.0.id())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells it");
    peak.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Takes all chunks over HTTP, and counts their rows.
async fn take_snapshot(address: &str) -> u64 {
    let network = network(address, "alice");
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let epoch = network.session(&SessionRequest { client_id }).await.expect("a session").epoch;
    let audiences = vec![AudienceKey::new("project:all").expect("ok")];
    let mut request = SnapshotRequest { client_id, epoch, audiences, ids: Vec::new(), resume: None };
    let mut rows = 0;
    loop {
        let chunk = network.snapshot(&request).await.expect("a chunk");
        rows += chunk.rows.len() as u64;
        if chunk.last {
            return rows;
        }
        request.resume = Some(SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position });
    }
}

/// A device's way to the server.
pub(crate) fn network(address: &str, user: &str) -> HttpNetwork {
    let user = UserId::new(user).expect("a user");
    let token = mint(&Secret::new(SECRET), &user, Duration::from_secs(3_600));
    HttpNetwork::new(&format!("http://{address}"), Arc::new(StaticToken::new(token))).expect("a URL")
}
