//! Snapshots and digests of a real Postgres: who sees what, at which moment, and at what cost to others.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use synchrotron_core::model::{
    ActionId, AudienceKey, Columns, Effect, ReplayKey, RowKey, RowsDigest, SnapshotId, Value,
};
use synchrotron_core::wire::{
    AudienceDigest, DigestRequest, Fault, FaultCode, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRequest,
    SnapshotRow,
};
use synchrotron_server::service::Service;
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::fixture::{Device, Theatre, audience, columns, hold, note, patch, seat};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

impl Device {
    async fn request(&self, audiences: &[&str]) -> SnapshotRequest {
        let epoch = self.session().await.epoch;
        let audiences = audiences.iter().map(|key| audience(key)).collect();
        SnapshotRequest { client_id: self.client_id, epoch, audiences, ids: Vec::new(), resume: None }
    }

    pub(crate) async fn begin(&self, audiences: &[&str]) -> Result<SnapshotChunk, Fault> {
        self.service.snapshot(&self.principal, self.request(audiences).await).await
    }

    async fn resume(&self, snapshot_id: SnapshotId, chunk: u32) -> Result<SnapshotChunk, Fault> {
        let resume = Some(SnapshotPosition { snapshot_id, chunk });
        let request = SnapshotRequest { resume, ..self.request(&[]).await };
        self.service.snapshot(&self.principal, request).await
    }

    /// Everything after a chunk, and what is in it.
    async fn rest(&self, mut chunk: SnapshotChunk) -> Vec<SnapshotRow> {
        let mut rows = std::mem::take(&mut chunk.rows);
        while !chunk.last {
            chunk = self.resume(chunk.position.snapshot_id, chunk.position.chunk + 1).await.expect("the next chunk");
            rows.append(&mut chunk.rows);
        }
        rows
    }

    pub(crate) async fn take(&self, audiences: &[&str]) -> (SnapshotHeader, Vec<SnapshotRow>) {
        let first = self.begin(audiences).await.expect("a snapshot");
        (first.header.clone().expect("a header"), self.rest(first).await)
    }

    pub(crate) async fn digests(&self, audiences: &[&str]) -> BTreeMap<AudienceKey, AudienceDigest> {
        let SnapshotRequest { client_id, epoch, audiences, .. } = self.request(audiences).await;
        let request = DigestRequest { client_id, epoch, audiences };
        self.service.digest(&self.principal, request).await.expect("digests").audiences
    }
}

pub(crate) fn by_key(rows: &[SnapshotRow]) -> BTreeMap<RowKey, Columns> {
    let key = |row: &SnapshotRow| RowKey { table: row.table.clone(), row_id: row.row_id.clone() };
    let map: BTreeMap<_, _> = rows.iter().map(|row| (key(row), row.columns.clone())).collect();
    assert_eq!(map.len(), rows.len(), "no row comes twice");
    map
}

fn large(row: &str, label: &str) -> synchrotron_core::model::Patch {
    let label = format!("{label}{}", "x".repeat(4_000));
    patch("seats", row, "project:p", Effect::Insert(columns([("label", label.into()), ("holder", Value::Null)])))
}

/// A hundred rows of project p that fill several chunks of 20,000 bytes.
pub(crate) async fn theatre_with_chunks(change: impl FnOnce(&mut synchrotron_server::settings::Settings)) -> Theatre {
    let theatre = Theatre::open_with("", &[], |settings| {
        settings.snapshots.chunk_bytes_max = 20_000;
        change(settings);
    })
    .await;
    let mut alice = theatre.device("alice");
    alice.sync(vec![alice.action(10, (0..100).map(|row| large(&format!("s{row:03}"), "")).collect())]).await;
    theatre
}

/// The policy has the last word: what it hides of a user's own audience is in no snapshot, count or digest.
#[tokio::test]
async fn policies_hide_rows_from_snapshots() {
    let theatre = Theatre::open_with(
        "CREATE POLICY secrets ON seats AS RESTRICTIVE USING (holder IS DISTINCT FROM 'secret')",
        &[],
        |_| {},
    )
    .await;
    let (mut alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(10, vec![seat("A1"), seat("A2"), note("n", "alice")])]).await;
    let (_, shown) = alice.take(&["project:p"]).await;
    let open = alice.digests(&["project:p"]).await[&audience("project:p")];
    theatre.execute("UPDATE seats SET holder = 'secret' WHERE id = 'A2'").await;

    let asked = ["project:p", "project:q", "user:alice", "user:bob"];
    let (header, rows) = alice.take(&asked).await;
    let told: Vec<_> = header.audiences.iter().map(|told| (told.audience_key.as_str(), told.rows)).collect();
    assert_eq!(told, [("project:p", 1), ("user:alice", 1)]);
    let ids: Vec<&str> = rows.iter().map(|row| row.row_id.as_str()).collect();
    assert_eq!(ids, ["n", "A1"]);
    assert_eq!(rows[1], shown[0]);
    let (header, rows) = bob.take(&asked).await;
    assert_eq!(header.audiences.len(), 3);
    assert_eq!(rows.len(), 1, "{rows:?}");
    let digests = alice.digests(&asked).await;
    assert_eq!(digests.keys().map(AudienceKey::as_str).collect::<Vec<_>>(), ["project:p", "user:alice"]);
    assert_eq!((open.rows, digests[&audience("project:p")].rows), (2, 1));
    assert_ne!(open.digest, digests[&audience("project:p")].digest);
}

#[tokio::test]
async fn a_snapshot_that_nobody_asks_on_for_is_let_go() {
    let theatre = theatre_with_chunks(|settings| settings.snapshots.idle_max = Duration::from_millis(300)).await;
    let alice = theatre.device("alice");
    let first = alice.begin(&["project:p"]).await.expect("a snapshot");
    let open = "SELECT count(*)::text FROM pg_stat_activity \
                WHERE datname = current_database() AND state = 'idle in transaction'";
    assert_eq!(theatre.scalar(open).await.as_deref(), Some("1"));
    let gone = wait_for("its transaction to end", PATIENCE, async || {
        (theatre.scalar(open).await.as_deref() == Some("0")).then_some(())
    });
    gone.await.expect("it ends by itself");
    let fault = alice.resume(first.position.snapshot_id, 1).await.expect_err("gone");
    assert_eq!(fault.code, FaultCode::SnapshotGone);
}

/// Those that are about to begin count, too.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_snapshots_that_a_user_begins_at_once_no_more_are_open_than_it_may_have() {
    let theatre = theatre_with_chunks(|settings| settings.snapshots.open_per_user_max = 2).await;
    let devices: Vec<Device> = (0..12).map(|_| theatre.device("alice")).collect();
    let begun = join_all(devices.iter().map(|device| device.begin(&["project:p"]))).await;
    let open = begun.iter().filter(|begun| begun.is_ok()).count();
    assert_eq!(open, 2, "{begun:?}");
    assert!(begun.iter().filter_map(|begun| begun.as_ref().err()).all(|fault| fault.code == FaultCode::Unavailable));
}

#[tokio::test]
async fn snapshots_are_bounded_and_leave_room_for_uploads() {
    let theatre = theatre_with_chunks(|settings| {
        settings.snapshots.open_max = 2;
        settings.snapshots.open_per_user_max = 1;
        settings.snapshots.ids_max = 3;
        settings.pool_connections_max = 1;
    })
    .await;
    let (alice, second, bob) = (theatre.device("alice"), theatre.device("alice"), theatre.device("bob"));
    let first = alice.begin(&["project:p"]).await.expect("a snapshot");
    let fault = second.begin(&["project:p"]).await.expect_err("one of a user's at a time");
    assert_eq!(fault.code, FaultCode::Unavailable);
    let bobs = bob.begin(&["project:p"]).await.expect("another user's");
    theatre.execute("INSERT INTO project_members VALUES ('p', 'carol')").await;
    let carol = theatre.device("carol");
    assert_eq!(carol.begin(&["project:p"]).await.expect_err("no room").code, FaultCode::Unavailable);

    // Its own one before makes way, and whoever has ended.
    let again = alice.begin(&["project:p"]).await.expect("instead of the one before");
    let gone = alice.resume(first.position.snapshot_id, 1).await.expect_err("ended by the second");
    assert_eq!(gone.code, FaultCode::SnapshotGone);
    bob.rest(bobs).await;
    let carols = carol.begin(&["project:p"]).await.expect("room");
    let upload = vec![alice.action(20, vec![hold("s001", Some("alice"))])];
    alice.clone().sync(upload).await;
    assert_eq!((alice.rest(again).await.len(), carol.rest(carols).await.len()), (100, 100));

    let ids = (0..4).map(|id| ActionId::from_uuid(Uuid::from_u128(id))).collect();
    let request = SnapshotRequest { ids, ..alice.request(&["project:p"]).await };
    let fault = alice.service.snapshot(&alice.principal, request).await.expect_err("too many");
    assert_eq!(fault.code, FaultCode::TooLarge);
}

/// Whoever leaves an audience while it takes a snapshot of it gets no further row; another's device gets none at all.
#[tokio::test]
async fn a_snapshot_ends_with_the_membership() {
    let theatre = theatre_with_chunks(|_| {}).await;
    let (alice, bob) = (theatre.device("alice"), theatre.device("bob"));
    let first = alice.begin(&["project:p", "user:alice"]).await.expect("a snapshot");
    let id = first.position.snapshot_id;
    for thief in [&bob, &theatre.device("alice")] {
        assert_eq!(thief.resume(id, 1).await.expect_err("not its own").code, FaultCode::SnapshotGone);
    }
    let mut posing = bob.clone();
    posing.client_id = alice.client_id;
    let request = SnapshotRequest { client_id: alice.client_id, ..bob.request(&["project:p"]).await };
    let fault = posing.service.snapshot(&posing.principal, request).await.expect_err("a foreign device");
    assert_eq!(fault.code, FaultCode::ForeignClient);
    alice.resume(id, 1).await.expect("still its own");
    theatre.execute("DELETE FROM project_members WHERE project_id = 'p' AND user_id = 'alice'").await;
    assert_eq!(alice.resume(id, 2).await.expect_err("no member").code, FaultCode::SnapshotGone);
    theatre.execute("INSERT INTO project_members VALUES ('p', 'alice')").await;
    assert_eq!(alice.resume(id, 2).await.expect_err("for good").code, FaultCode::SnapshotGone);
}

/// Carriers give up on calls; the chunk that was being read is not lost.
#[tokio::test]
async fn a_call_that_is_given_up_loses_no_rows() {
    let theatre = theatre_with_chunks(|_| {}).await;
    let alice = theatre.device("alice");
    let mut chunk = alice.begin(&["project:p"]).await.expect("a snapshot");
    let mut rows = Vec::new();
    loop {
        rows.append(&mut chunk.rows);
        if chunk.last {
            break;
        }
        let next = SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position };
        let request = SnapshotRequest { resume: Some(next), ..alice.request(&[]).await };
        let given_up = alice.service.snapshot(&alice.principal, request.clone());
        let waited = tokio::time::timeout(Duration::from_micros(u64::from(next.chunk) * 150), given_up).await;
        drop(waited);
        chunk = alice.service.snapshot(&alice.principal, request).await.expect("the same chunk");
    }
    assert_eq!(by_key(&rows).len(), 100);
}

/// A row larger than a chunk has one to itself, and the header waits for none.
#[tokio::test]
async fn rows_of_any_size_come_through() {
    let theatre = Theatre::open_with("", &[], |settings| settings.snapshots.chunk_bytes_max = 1_000).await;
    let mut alice = theatre.device("alice");
    let row = |id: &str, bytes: usize| {
        patch("seats", id, "project:p", Effect::Insert(columns([("label", Value::Text("x".repeat(bytes)))])))
    };
    alice.sync(vec![alice.action(10, vec![row("a", 10), row("b", 1 << 20), row("c", 10), row("d", 300_000)])]).await;
    let (header, rows) = alice.take(&["project:p"]).await;
    assert_eq!((header.audiences[0].rows, by_key(&rows).len()), (4, 4));
    let mut digest = RowsDigest::default();
    rows.iter()
        .for_each(|row| digest.add(&RowKey { table: row.table.clone(), row_id: row.row_id.clone() }, &row.columns));
    let told = alice.digests(&["project:p"]).await[&audience("project:p")];
    assert_eq!((told.rows, told.digest, told.head), (4, digest, header.audiences[0].cursor));
}

/// Floors of a log that was written before there were any.
#[tokio::test]
async fn the_migration_finds_the_floors() {
    let theatre = Theatre::open().await;
    let mut alice = theatre.device("alice");
    let first = alice.action(10, vec![seat("A1")]);
    let newest = alice.action(30, vec![seat("A2")]);
    let late = alice.action(20, vec![seat("A3"), note("n", "alice")]);
    let amendment = alice.correction(alice.position(&first), vec![hold("A1", Some("alice"))]);
    alice.sync(vec![first, newest.clone()]).await;
    alice.sync(vec![late.clone(), amendment]).await;
    let floors = async |service: &Service| -> Vec<Option<ReplayKey>> {
        let mut device = alice.clone();
        device.service = service.clone();
        let (header, _) = device.take(&["project:a", "project:p", "user:alice"]).await;
        header.audiences.into_iter().map(|told| told.floor).collect()
    };
    let expected = [None, Some(alice.position(&newest)), Some(alice.position(&late))];
    assert_eq!(floors(&theatre.service).await, expected);
    theatre
        .execute(
            "ALTER TABLE synchrotron.audience_heads DROP floor_clock, DROP floor_client_id, DROP floor_action_id;
             DELETE FROM synchrotron.schema_migrations WHERE version = 3",
        )
        .await;
    let again = Service::connect(theatre.service.settings()).await.expect("migrates");
    assert_eq!(floors(&again).await, expected);
}
