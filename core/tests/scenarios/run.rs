//! RUN: the driver runs one pass at a time, answers everybody who asked, and survives what passes do.
//!
//! Not here, with the reason:
//! - RUN-06: there is no runner without a network; a carrier without push is polled, tested with the client.
//! - RUN-09: whether something is missing is told by each slice's `prev`, not by marks of a stream.
//! - RUN-11: a slice carries records and their rows together, so no row comes before its record (U08).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use synchrotron_core::action::Table;
use synchrotron_core::client::{Client, ClientError};
use synchrotron_core::model::{AudienceKey, Value};
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::store::Durability;
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use tokio::sync::{Semaphore, mpsc};

use crate::actions::{CreateNote, create};
use crate::fleet::{SHARED, World, user_id};

const DEADLINE: Duration = Duration::from_secs(10);

/// A network whose fetches wait until the test lets them through, and which says what the test wants.
#[derive(Debug)]
struct Gated {
    inner: MemoryNetwork,
    /// Fetches that may pass.
    passes: Semaphore,
    fetches: AtomicUsize,
    fails: AtomicBool,
    panics: AtomicBool,
    /// Answers fetches with nothing new, as a server would that only pushes.
    is_empty: AtomicBool,
    live: std::sync::Mutex<Option<mpsc::UnboundedReceiver<Ingress>>>,
}

impl Gated {
    fn new(world: &World, user: &str) -> (Arc<Self>, mpsc::UnboundedSender<Ingress>) {
        let (push, live) = mpsc::unbounded_channel();
        let network = Self {
            inner: world.server.connect(user_id(user)),
            passes: Semaphore::new(Semaphore::MAX_PERMITS),
            fetches: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            panics: AtomicBool::new(false),
            is_empty: AtomicBool::new(false),
            live: std::sync::Mutex::new(Some(live)),
        };
        (Arc::new(network), push)
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    /// Closes the gate, whatever it let through before.
    fn close(&self) {
        self.passes.forget_permits(Semaphore::MAX_PERMITS);
    }
}

#[async_trait]
impl Network for Gated {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.inner.session(request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.passes.acquire().await.expect("the gate stays").forget();
        assert!(!self.panics.swap(false, Ordering::SeqCst), "the test lets this fetch panic");
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(NetworkError::Timeout { carrier: Carrier::Memory, call: "fetch", after_ms: 1 });
        }
        if self.is_empty.load(Ordering::SeqCst) {
            let (epoch, cursors) = (request.epoch, request.cursors.clone());
            return Ok(FetchPage { epoch, records: Vec::new(), cursors, more: false });
        }
        self.inner.fetch(request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.inner.upload(batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.inner.snapshot(request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.inner.digest(request).await
    }

    async fn subscribe(&self, _: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        let live = self.live.lock().expect("nothing panics with it").take();
        let next = |mut live: mpsc::UnboundedReceiver<Ingress>| async { live.recv().await.map(|event| (event, live)) };
        Ok(Some(live.map_or_else(|| stream::pending().boxed(), |live| stream::unfold(live, next).boxed())))
    }

    fn carrier(&self) -> Carrier {
        Carrier::Memory
    }
}

async fn client(world: &World, user: &str) -> Client {
    world.allow(user, SHARED);
    Client::builder()
        .database(world.folder.path().join(format!("client of {user}.db")))
        .user(user)
        .schema(crate::device::SCHEMA)
        .table(Table::new("notes").identity(["user_id", "title"]))
        .action::<CreateNote>()
        .durability(Durability::Normal)
        .open()
        .await
        .expect("opens")
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    within(what, async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

async fn notes(client: &Client) -> Vec<Value> {
    let rows = client.query("SELECT id FROM notes ORDER BY id", &[]).await.expect("reads");
    rows.into_iter().map(|row| row.get::<String>("id").expect("text").into()).collect()
}

fn asked(client: &Client) -> tokio::task::JoinHandle<Result<(), ClientError>> {
    let client = client.clone();
    tokio::spawn(async move { client.sync_now().await })
}

/// Requests that come while a pass runs share the next one; passes never overlap; everybody is answered.
#[tokio::test]
async fn run_01_requests_that_come_meanwhile_share_one_more_pass() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, _push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first pass", a.sync_now()).await.expect("syncs");
    network.close();
    let before = network.fetches();
    let first = asked(&a);
    until("the first pass", || network.fetches() == before + 1).await;
    let burst: Vec<_> = (0..20).map(|_| asked(&a)).collect();
    // All twenty are in the driver's inbox once they have had their turns.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(network.fetches(), before + 1, "nothing overlaps");
    network.passes.add_permits(100);
    within("the first", first).await.expect("no panic").expect("synced");
    for request in burst {
        within("the burst", request).await.expect("no panic").expect("synced");
    }
    assert!(network.fetches() - before <= 3, "one pass for the first, one shared: {}", network.fetches() - before);
}

/// Requests one after the other have a pass each.
#[tokio::test]
async fn run_02_sequential_requests_have_a_pass_each() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, _push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first", a.sync_now()).await.expect("syncs");
    let before = network.fetches();
    within("the second", a.sync_now()).await.expect("syncs");
    within("the third", a.sync_now()).await.expect("syncs");
    assert!(network.fetches() >= before + 2);
}

/// A pass that fails tells its asker why; the next request is a new pass.
#[tokio::test]
async fn run_03_a_failed_pass_is_told_and_the_next_one_works() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, _push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first", a.sync_now()).await.expect("syncs");
    network.fails.store(true, Ordering::SeqCst);
    assert!(matches!(within("the failing pass", a.sync_now()).await, Err(ClientError::Sync(_))));
    within("the next", a.sync_now()).await.expect("syncs");
}

/// The same slice twice is kept once, and shows by itself.
#[tokio::test]
async fn run_04_run_10_a_pushed_slice_shows_by_itself_and_once() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first pass", a.sync_now()).await.expect("syncs");
    network.is_empty.store(true, Ordering::SeqCst);
    let (mut writer, mut listener) = (world.device("W"), world.device("L"));
    listener.listen();
    writer.run(&create("n", "pushed"));
    writer.sync();
    let mut changes = a.changes();
    for slice in listener.slices().into_iter().flat_map(|slice| [slice.clone(), slice]) {
        push.send(Ingress::Slice(slice)).expect("the client listens");
    }
    within("the change", changes.recv()).await.expect("the client lives");
    assert_eq!(notes(&a).await, ["n".into()]);
    within("a pass", a.sync_now()).await.expect("syncs");
    let log = a.query("SELECT count(*) AS n FROM action_records", &[]).await.expect("reads");
    assert_eq!(log[0].get::<i64>("n").expect("a number"), 1);
    assert!(matches!(changes.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Empty)), "one change");
}

/// A wake-up is a reason to look, and carries nothing itself.
#[tokio::test]
async fn run_05_a_wakeup_makes_one_fetch() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first pass", a.sync_now()).await.expect("syncs");
    let before = network.fetches();
    push.send(Ingress::Wakeup).expect("the client listens");
    until("the fetch", || network.fetches() > before).await;
    assert!(notes(&a).await.is_empty());
}

/// A pass that panics is a pass that failed: its asker is told, and the next one works.
#[tokio::test]
async fn run_07_a_pass_that_panics_does_not_end_syncing() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, _push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first", a.sync_now()).await.expect("syncs");
    network.panics.store(true, Ordering::SeqCst);
    within("the panicking pass", a.sync_now()).await.expect_err("it panicked");
    within("the next", a.sync_now()).await.expect("syncs");
}

/// Another device is faster between the fetch and the upload: one pass fetches again and sends again.
#[tokio::test]
async fn hg_03_one_pass_of_the_driver_fetches_again_and_goes_on() {
    let world = World::new();
    let a = client(&world, "A").await;
    let (network, _push) = Gated::new(&world, "A");
    a.go_online(network.clone());
    within("the first pass", a.sync_now()).await.expect("syncs");
    let mut b = world.device("B");
    b.run(&create("n", "faster"));
    b.sync();
    let before = network.fetches();
    within("the action", a.execute(create("m", "of A"))).await.expect("runs").confirmed().await.expect("confirmed");
    assert!(network.fetches() > before);
    assert_eq!((world.accepted(), notes(&a).await), (2, vec!["m".into(), "n".into()]));
}
