//! The async client against the in-memory server: confirm, replay, reject, restart, go offline and come back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, ClientError, Connection, OpenError, Timing};
use synchrotron_core::model::{AudienceKey, Epoch, UserId};
use synchrotron_core::network::memory::{MemoryNetwork, MemoryServer};
use synchrotron_core::network::{Carrier, Failover, Ingress, Network, NetworkError};
use synchrotron_core::params;
use synchrotron_core::store::{Durability, Fate, QuarantineKind};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use tempfile::TempDir;
use uuid::Uuid;

const DEADLINE: Duration = Duration::from_secs(10);

/// The server's clock is everybody's: who acts first has the smaller time.
fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_millis()).expect("not that late")
}

#[derive(Serialize, Deserialize)]
struct Open {
    seats: Vec<String>,
}

impl Action for Open {
    const TAG: &'static str = "open_v1";
    type Output = usize;

    fn run(&self, ctx: &mut Context<'_>) -> Result<usize, ActionError> {
        for seat in &self.seats {
            ctx.insert("seats", &[("id", seat.into()), ("audience_key", "project".into())])?;
        }
        Ok(self.seats.len())
    }
}

#[derive(Serialize, Deserialize)]
struct Book {
    seat: String,
}

impl Action for Book {
    const TAG: &'static str = "book_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let user = ctx.user_id().to_string();
        match ctx.execute("UPDATE seats SET holder = ? WHERE id = ? AND holder IS NULL", params![user, &self.seat])? {
            0 => Err(ActionError::reject(format!("{} is taken", self.seat))),
            _ => Ok(()),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Note {
    text: String,
}

impl Action for Note {
    const TAG: &'static str = "note_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let audience = format!("user:{}", ctx.user_id());
        ctx.insert("notes", &[("text", (&self.text).into()), ("audience_key", audience.into())]).map(drop)
    }
}

async fn open(path: &Path, user: &str) -> Result<Client, OpenError> {
    Client::builder()
        .database(path)
        .user(user)
        .schema(
            "CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, holder TEXT, audience_key TEXT NOT NULL);
             CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, text TEXT, audience_key TEXT NOT NULL);",
        )
        .table(Table::new("seats").given_ids())
        .table(Table::new("notes").identity(["text"]))
        .action::<Open>()
        .action::<Book>()
        .action::<Note>()
        .durability(Durability::Normal)
        .timing(Timing { retry_first: Duration::from_millis(10), ..Timing::default() })
        .open()
        .await
}

struct World {
    server: MemoryServer,
    folder: TempDir,
}

impl World {
    fn new() -> Self {
        let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), wall_clock_ms());
        server.set_clock(wall_clock_ms);
        for user in ["alice", "bob"] {
            for audience in ["project".to_owned(), format!("user:{user}")] {
                server.allow(&user_id(user), &AudienceKey::new(audience).expect("ok"));
            }
        }
        Self { server, folder: tempfile::tempdir().expect("a folder") }
    }

    async fn device(&self, user: &str) -> (Client, Arc<MemoryNetwork>) {
        let client = open(&self.folder.path().join(format!("{user}.db")), user).await.expect("opens");
        (client, Arc::new(self.server.connect(user_id(user))))
    }
}

fn user_id(user: &str) -> UserId {
    UserId::new(user).expect("ok")
}

/// Who acts in one and the same millisecond is ordered by client id, which is random.
async fn until_a_later_millisecond() {
    let now = wall_clock_ms();
    while wall_clock_ms() <= now {
        tokio::task::yield_now().await;
    }
}

async fn within<T>(future: impl Future<Output = Result<T, ClientError>>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time").expect("works")
}

async fn holder(client: &Client, seat: &str) -> Option<String> {
    let rows = client.query("SELECT holder FROM seats WHERE id = ?", params![seat]).await.expect("reads");
    rows.first().and_then(|row| row.get("holder").expect("a text or null"))
}

async fn until_holder(client: &Client, seat: &str, expected: &str) {
    let mut changes = client.changes();
    let shown = async {
        while holder(client, seat).await.as_deref() != Some(expected) {
            changes.recv().await.expect("the client lives");
        }
    };
    tokio::time::timeout(DEADLINE, shown).await.expect("in time");
}

fn open_seats() -> Open {
    Open { seats: vec!["a".into(), "b".into()] }
}

#[tokio::test]
async fn an_action_reaches_another_device_live() {
    let world = World::new();
    let ((alice, to_alice), (bob, to_bob)) = (world.device("alice").await, world.device("bob").await);
    alice.go_online(to_alice);
    bob.go_online(to_bob);
    let mut opened = within(alice.execute(open_seats())).await;
    assert_eq!(opened.output, 2, "the output comes at once");
    assert_eq!(within(opened.confirmed()).await, Fate::Confirmed);
    within(alice.sync_now()).await;
    within(bob.sync_now()).await;
    within(alice.execute(Book { seat: "a".into() })).await;
    until_holder(&bob, "a", "alice").await;
    let refused = bob.execute(Book { seat: "a".into() }).await.expect_err("the rule runs on Bob's device");
    assert_eq!(refused.to_string(), "a is taken");
}

#[tokio::test]
async fn two_offline_bookings_end_as_one_and_the_loser_is_told_why() {
    let world = World::new();
    let ((alice, to_alice), (bob, to_bob)) = (world.device("alice").await, world.device("bob").await);
    alice.go_online(to_alice.clone());
    bob.go_online(to_bob.clone());
    within(within(alice.execute(open_seats())).await.confirmed()).await;
    within(bob.sync_now()).await;
    alice.go_offline();
    bob.go_offline();
    let mut bobs = within(bob.execute(Book { seat: "a".into() })).await;
    until_a_later_millisecond().await;
    let mut alices = within(alice.execute(Book { seat: "a".into() })).await;
    alice.go_online(to_alice);
    within(alice.sync_now()).await;
    assert_eq!(within(alices.confirmed()).await, Fate::Confirmed, "told from the database: its event is past");
    bob.go_online(to_bob);
    let changed = within(alices.next_fate()).await;
    assert_eq!(changed, Fate::Changed { reason: Some("a is taken".into()) });
    assert_eq!(within(bobs.confirmed()).await, Fate::Confirmed);
    for client in [&alice, &bob] {
        until_holder(client, "a", "bob").await;
    }
}

#[tokio::test]
async fn upl_03_a_lost_outcome_confirms_once() {
    let world = World::new();
    let (alice, to_alice) = world.device("alice").await;
    to_alice.lose_next_outcome();
    alice.go_online(to_alice);
    let mut opened = within(alice.execute(open_seats())).await;
    assert_eq!(within(opened.confirmed()).await, Fate::Confirmed);
    within(alice.sync_now()).await;
    assert_eq!(world.server.log().len(), 1);
    assert_eq!(alice.status().borrow().pending, 0);
}

#[tokio::test]
async fn a_denied_action_is_quarantined_alone_and_what_depended_on_it_too() {
    let world = World::new();
    let (alice, to_alice) = world.device("alice").await;
    alice.go_online(to_alice.clone());
    within(alice.sync_now()).await;
    alice.go_offline();
    world.server.revoke(&user_id("alice"), &AudienceKey::new("project").expect("ok"));
    let mut denied = within(alice.execute(open_seats())).await;
    let mut dependent = within(alice.execute(Book { seat: "a".into() })).await;
    let mut note = within(alice.execute(Note { text: "mine".into() })).await;
    alice.go_online(to_alice);
    assert!(matches!(within(denied.confirmed()).await, Fate::Rejected { .. }));
    let reason = Fate::Rejected { reason: "a is taken".into() };
    assert_eq!(within(dependent.confirmed()).await, reason, "without the seats, the booking fails on replay");
    assert_eq!(within(note.confirmed()).await, Fate::Confirmed, "the rest goes on");
    let quarantined = within(alice.quarantined()).await;
    let kinds: Vec<_> = quarantined.iter().map(|quarantined| (quarantined.id, quarantined.kind)).collect();
    let expected = [(denied.id, QuarantineKind::RejectedOnReplay), (dependent.id, QuarantineKind::RejectedOnReplay)];
    assert_eq!(kinds, expected);
    assert!(alice.query("SELECT * FROM seats", &[]).await.expect("reads").is_empty(), "its rows are gone");
}

#[tokio::test]
async fn pending_work_and_fates_survive_a_restart() {
    let world = World::new();
    let path = world.folder.path().join("alice.db");
    let id = {
        let (alice, _) = world.device("alice").await;
        within(alice.execute(open_seats())).await.id
    };
    let alice = open(&path, "alice").await.expect("opens again");
    assert_eq!(alice.status().borrow().pending, 1);
    assert_eq!(within(alice.fate(id)).await, None);
    alice.go_online(Arc::new(world.server.connect(user_id("alice"))));
    within(alice.sync_now()).await;
    assert_eq!(within(alice.fate(id)).await, Some(Fate::Confirmed));
    drop(alice);
    let alice = open(&path, "alice").await.expect("opens again");
    assert_eq!(within(alice.fate(id)).await, Some(Fate::Confirmed));
    let other = open(&path, "bob").await.expect_err("not Bob's");
    assert!(matches!(other, OpenError::ForeignUser { .. }), "{other}");
}

#[tokio::test]
async fn an_outage_is_shown_and_ends_by_itself() {
    let world = World::new();
    let (alice, to_alice) = world.device("alice").await;
    to_alice.set_online(false);
    alice.go_online(to_alice.clone());
    let mut status = alice.status();
    let failed = status.wait_for(|status| matches!(status.connection, Connection::Failed { .. }));
    tokio::time::timeout(DEADLINE, failed).await.expect("in time").expect("the client lives");
    let mut opened = within(alice.execute(open_seats())).await;
    to_alice.set_online(true);
    assert_eq!(within(opened.confirmed()).await, Fate::Confirmed);
}

#[tokio::test]
async fn without_a_network_sync_now_says_so() {
    let world = World::new();
    let (alice, _) = world.device("alice").await;
    assert!(matches!(alice.sync_now().await, Err(ClientError::Offline)));
}

#[tokio::test]
async fn many_requests_share_passes_and_all_are_answered() {
    let world = World::new();
    let (alice, to_alice) = world.device("alice").await;
    alice.go_online(to_alice);
    let requests: Vec<_> = (0..50)
        .map(|_| {
            let alice = alice.clone();
            tokio::spawn(async move { alice.sync_now().await })
        })
        .collect();
    for request in requests {
        tokio::time::timeout(DEADLINE, request).await.expect("in time").expect("no panic").expect("synced");
    }
}

/// A carrier without push, as HTTP is.
#[derive(Debug)]
struct Polled(MemoryNetwork);

#[async_trait]
impl Network for Polled {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.0.session(request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.0.fetch(request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.0.upload(batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.0.snapshot(request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.0.digest(request).await
    }

    async fn subscribe(&self, _: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(None)
    }

    fn carrier(&self) -> Carrier {
        Carrier::Http
    }
}

#[tokio::test]
async fn a_carrier_that_goes_away_is_noticed_without_a_push_or_a_poll() {
    let world = World::new();
    let ((alice, to_alice), (bob, preferred)) = (world.device("alice").await, world.device("bob").await);
    let fallback = Arc::new(Polled(world.server.connect(user_id("bob"))));
    let network = Failover::new(vec![preferred.clone(), fallback]);
    alice.go_online(to_alice);
    bob.go_online(Arc::new(network));
    within(within(alice.execute(open_seats())).await.confirmed()).await;
    within(bob.sync_now()).await;
    preferred.set_online(false);
    within(alice.execute(Book { seat: "a".into() })).await;
    until_holder(&bob, "a", "alice").await;
}
