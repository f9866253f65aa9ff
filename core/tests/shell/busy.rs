//! A busy server puts devices off, and nobody notices; one that stays busy is shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use synchrotron_core::client::{Connection, SyncError, Timing};
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest, UploadBatch,
};

use crate::support::{World, alice, note, open, quick, soon, within};

/// Says so many times of each kind of call that it is busy.
#[derive(Debug)]
struct Busy {
    inner: MemoryNetwork,
    sessions: AtomicU32,
    fetches: AtomicU32,
    uploads: AtomicU32,
}

impl Busy {
    fn new(inner: MemoryNetwork, times: u32) -> Arc<Self> {
        let [sessions, fetches, uploads] = [(); 3].map(|()| AtomicU32::new(times));
        Arc::new(Self { inner, sessions, fetches, uploads })
    }

    fn left(&self) -> [u32; 3] {
        [&self.sessions, &self.fetches, &self.uploads].map(|times| times.load(Ordering::SeqCst))
    }
}

fn is_busy(times: &AtomicU32) -> bool {
    times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn busy() -> NetworkError {
    Fault::new(FaultCode::Unavailable, "too many requests at once").into()
}

#[async_trait]
impl Network for Busy {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        if is_busy(&self.sessions) { Err(busy()) } else { self.inner.session(request).await }
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        if is_busy(&self.fetches) { Err(busy()) } else { self.inner.fetch(request).await }
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        if is_busy(&self.uploads) { Ok(Outcome::Retry { after_ms: 20 }) } else { self.inner.upload(batch).await }
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.inner.snapshot(request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.inner.digest(request).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        self.inner.subscribe(audiences).await
    }

    fn carrier(&self) -> Carrier {
        self.inner.carrier()
    }
}

#[tokio::test]
async fn a_device_that_is_put_off_waits_and_tells_nobody() {
    let world = World::new();
    let client = world.client("one").await;
    within(client.execute(note("first"))).await;
    let network = Busy::new(world.server.connect(alice()), 4);
    client.go_online(network.clone());
    within(client.sync_now()).await;
    assert_eq!((network.left(), world.texts()), ([0; 3], 1));
    assert!(client.status().borrow().last_error.is_none());
}

#[tokio::test]
async fn while_uploads_are_put_off_others_changes_are_received() {
    let world = World::new();
    // Waits that outlast the test, unless the change is received.
    let timing = Timing { retry_first: Duration::from_secs(3_600), retry_max: Duration::from_secs(3_600), ..quick() };
    let client = open(&world.path("one"), timing).await;
    let network = Busy::new(world.server.connect(alice()), 0);
    client.go_online(network.clone());
    within(client.sync_now()).await;
    network.uploads.store(1, Ordering::SeqCst);
    within(client.execute(note("mine"))).await;
    soon(async {
        while network.left() != [0; 3] {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut touched = client.watch(["notes"]).expect("tracked");
    let other = world.client("two").await;
    within(other.execute(note("theirs"))).await;
    other.go_online(Arc::new(world.server.connect(alice())));
    soon(touched.next()).await.expect("the client lives");
    let notes = within(client.query("SELECT text FROM notes", &[])).await;
    assert_eq!((notes.len(), client.status().borrow().pending), (2, 1));
}

#[tokio::test]
async fn a_server_that_stays_busy_is_shown() {
    let world = World::new();
    let client = world.client("one").await;
    within(client.execute(note("first"))).await;
    let network = Busy::new(world.server.connect(alice()), 0);
    network.uploads.store(u32::MAX, Ordering::SeqCst);
    client.go_online(network.clone());
    let mut status = client.status();
    let failed = |connection: &Connection| {
        matches!(connection, Connection::Failed { error: SyncError::NotTaken { outcome: Outcome::Retry { .. } } })
    };
    soon(status.wait_for(|status| failed(&status.connection))).await.expect("the client lives");
    network.uploads.store(0, Ordering::SeqCst);
    within(client.sync_now()).await;
    assert_eq!(world.texts(), 1);
}
