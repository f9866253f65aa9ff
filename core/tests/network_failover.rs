//! Failover: the conformance suite over two carriers to one server, and what happens when carriers come and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Epoch, Hlc, Patch,
    RecordBody, RowId, RowKey, TableName, UserId, Value,
};
use synchrotron_core::network::memory::{MemoryNetwork, MemoryServer};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Carrier, Failover, FailoverPauses, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest, UploadBatch, UploadRecord,
};
use uuid::Uuid;

const NOW_MS: i64 = 1_800_000_000_000;
const PAUSES: FailoverPauses =
    FailoverPauses { first: Duration::from_millis(100), longest: Duration::from_millis(400) };

fn server() -> MemoryServer {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), NOW_MS);
    server.set_snapshot_rows_max(50);
    server
}

/// Connects every device twice; the preferred carrier is away, or loses each device's first outcome.
struct Fixture {
    server: MemoryServer,
    preferred_away: bool,
}

#[async_trait]
impl NetworkFixture for Fixture {
    async fn connect(&self, user: &UserId, _client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
        let (first, second) = (self.server.connect(user.clone()), self.server.connect(user.clone()));
        first.set_online(!self.preferred_away);
        first.lose_next_outcome();
        Ok(Arc::new(Failover::with_pauses(vec![Arc::new(first), Arc::new(second)], PAUSES)))
    }

    async fn allow(&self, user: &UserId, audience: &AudienceKey) {
        self.server.allow(user, audience);
    }

    async fn server_row(&self, row: &RowKey) -> Option<Columns> {
        self.server.rows(&row.table).remove(&row.row_id).map(|row| row.columns)
    }
}

mod preferred_carrier_loses_an_outcome {
    use super::*;
    synchrotron_core::network_suite!(Fixture { server: server(), preferred_away: false });
}

mod preferred_carrier_is_away {
    use super::*;
    synchrotron_core::network_suite!(Fixture { server: server(), preferred_away: true });
}

/// A carrier that counts the calls it gets, and fails them as it is told.
#[derive(Debug)]
struct Counted {
    inner: MemoryNetwork,
    calls: AtomicU32,
    failure: std::sync::Mutex<Option<NetworkError>>,
}

impl Counted {
    fn new(inner: MemoryNetwork) -> Arc<Self> {
        Arc::new(Self { inner, calls: AtomicU32::new(0), failure: std::sync::Mutex::new(None) })
    }

    fn fail_with(&self, failure: Option<NetworkError>) {
        *self.failure.lock().expect("not poisoned") = failure;
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    fn check(&self) -> Result<(), NetworkError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.failure.lock().expect("not poisoned").clone().map_or(Ok(()), Err)
    }
}

#[async_trait]
impl Network for Counted {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.check()?;
        self.inner.session(request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.check()?;
        self.inner.fetch(request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.check()?;
        self.inner.upload(batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.check()?;
        self.inner.snapshot(request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.check()?;
        self.inner.digest(request).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        self.check()?;
        self.inner.subscribe(audiences).await
    }

    fn carrier(&self) -> Carrier {
        self.inner.carrier()
    }
}

/// One device with two carriers to a server, and a colleague with a carrier of its own.
struct Scene {
    server: MemoryServer,
    first: Arc<Counted>,
    second: Arc<Counted>,
    failover: Failover,
    colleague: MemoryNetwork,
}

const DEVICE: u128 = 1;
const COLLEAGUE: u128 = 2;

impl Scene {
    fn new() -> Self {
        let server = server();
        let alice = user("alice");
        server.allow(&alice, &project());
        let [first, second] = [(); 2].map(|()| Counted::new(server.connect(alice.clone())));
        let failover = Failover::with_pauses(vec![Arc::clone(&first) as _, Arc::clone(&second) as _], PAUSES);
        let colleague = server.connect(alice);
        Self { server, first, second, failover, colleague }
    }

    async fn session(&self) -> Result<Session, NetworkError> {
        self.failover.session(&SessionRequest { client_id: client(DEVICE) }).await
    }

    /// The `n`th seat, as a batch.
    fn batch(&self, device: u128, n: u128) -> UploadBatch {
        let body = RecordBody::Action {
            tag: ActionTag::new("test_v1").expect("a good tag"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
        };
        let row = Patch {
            sequence: 0,
            table: TableName::new("seats").expect("a good name"),
            row_id: RowId::new(n.to_string()).expect("a good id"),
            audience_key: project(),
            effect: Effect::Insert(Columns::from([("holder".to_owned(), Value::Null)])),
        };
        let id = ActionId::from_uuid(Uuid::from_u128(n));
        let record = UploadRecord { id, clock: Hlc::at_millis(NOW_MS), body, rows: vec![row], trace_parent: None };
        UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::from_u128(n)),
            client_id: client(device),
            epoch: self.server.epoch(),
            basis: Cursors::from([(project(), self.server.head(&project()))]),
            records: vec![record],
        }
    }

    async fn colleague_writes(&self, n: u128) {
        let outcome = self.colleague.upload(&self.batch(COLLEAGUE, n)).await;
        assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    }

    async fn subscribe(&self) -> BoxStream<'static, Ingress> {
        self.failover.subscribe(&[project()]).await.expect("no fault").expect("push")
    }
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a good name")
}

fn client(n: u128) -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(n))
}

fn project() -> AudienceKey {
    AudienceKey::new("project:1").expect("a good key")
}

fn unavailable() -> NetworkError {
    NetworkError::Unavailable { carrier: Carrier::Nats, detail: "away".to_owned() }
}

async fn next(events: &mut BoxStream<'static, Ingress>) -> Ingress {
    tokio::time::timeout(Duration::from_secs(60), events.next()).await.expect("in time").expect("the stream goes on")
}

/// Waits until a seat's slice comes; wakeups may come before.
async fn hears(events: &mut BoxStream<'static, Ingress>, n: u128) {
    loop {
        match next(events).await {
            Ingress::Slice(slice) if slice.records[0].record.id == ActionId::from_uuid(Uuid::from_u128(n)) => return,
            Ingress::Slice(_) | Ingress::Wakeup => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_carrier_is_left_alone_and_probed_again() {
    let scene = Scene::new();
    scene.first.fail_with(Some(unavailable()));
    for _ in 0..10 {
        scene.session().await.expect("the second carrier serves");
    }
    assert_eq!((scene.first.calls(), scene.second.calls()), (1, 10));

    tokio::time::advance(PAUSES.first).await;
    scene.session().await.expect("the second carrier serves");
    assert_eq!(scene.first.calls(), 2, "probed once");
    tokio::time::advance(PAUSES.first).await;
    scene.session().await.expect("the second carrier serves");
    assert_eq!(scene.first.calls(), 2, "the second pause is longer");

    scene.first.fail_with(None);
    tokio::time::advance(PAUSES.longest).await;
    let before = scene.second.calls();
    for _ in 0..5 {
        scene.session().await.expect("the first carrier serves");
    }
    assert_eq!((scene.first.calls(), scene.second.calls()), (7, before), "it returned to the preferred carrier");
}

#[tokio::test(start_paused = true)]
async fn a_carrier_that_says_it_is_back_is_used_at_once() {
    let scene = Scene::new();
    scene.first.inner.set_online(false);
    scene.session().await.expect("the second carrier serves");
    scene.session().await.expect("the second carrier serves");
    assert_eq!(scene.first.calls(), 1);
    scene.first.inner.set_online(true);
    scene.session().await.expect("the first carrier serves");
    assert_eq!((scene.first.calls(), scene.second.calls()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn the_carrier_is_the_one_that_carries_now() {
    let scene = Scene::new();
    assert_eq!(scene.failover.carrier(), Carrier::Memory);
    scene.first.inner.set_online(false);
    scene.second.inner.set_online(false);
    assert_eq!(scene.failover.carrier(), Carrier::Offline);
    let error = scene.session().await.expect_err("all are away");
    assert!(matches!(error, NetworkError::Unavailable { .. }), "{error}");
    scene.second.inner.set_online(true);
    assert_eq!(scene.failover.carrier(), Carrier::Memory);
    scene.session().await.expect("the second carrier serves");
}

#[tokio::test(start_paused = true)]
async fn when_all_rest_all_are_tried() {
    let scene = Scene::new();
    scene.first.fail_with(Some(unavailable()));
    scene.second.fail_with(Some(unavailable()));
    assert!(scene.session().await.is_err());
    scene.first.fail_with(None);
    scene.session().await.expect("no call is refused without trying");
}

#[tokio::test]
async fn a_fault_is_not_taken_to_the_next_carrier() {
    let scene = Scene::new();
    scene.first.fail_with(Some(Fault::new(FaultCode::Unauthenticated, "expired").into()));
    assert!(matches!(scene.session().await, Err(NetworkError::Fault(_))));
    assert_eq!(scene.second.calls(), 0);
}

#[tokio::test]
async fn a_message_too_large_goes_by_the_next_carrier_and_the_first_stays_preferred() {
    let scene = Scene::new();
    let request = NetworkError::TooLarge { carrier: Carrier::Nats, max: 1, actual: 2 };
    let answer = Fault::new(FaultCode::TooLarge, "NATS does not carry the answer").into();
    for (n, too_large) in [(1, request), (2, answer)] {
        scene.first.fail_with(Some(too_large));
        assert!(matches!(scene.failover.upload(&scene.batch(DEVICE, n)).await, Ok(Outcome::Accepted { .. })));
    }
    scene.first.fail_with(None);
    scene.session().await.expect("the first carrier serves");
    assert_eq!((scene.first.calls(), scene.second.calls()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn an_upload_with_an_unknown_outcome_has_one_effect() {
    let scene = Scene::new();
    for n in 1..=20 {
        // Each carrier comes and goes, and loses outcomes; the device sends until it has one.
        scene.first.inner.set_online(n % 3 != 0);
        scene.second.inner.set_online(n % 4 != 0 || n % 3 != 0);
        if n % 2 == 0 {
            scene.first.inner.lose_next_outcome();
            scene.second.inner.lose_next_outcome();
        }
        let batch = scene.batch(DEVICE, n);
        let sent = async {
            loop {
                match scene.failover.upload(&batch).await {
                    Ok(outcome) => return outcome,
                    Err(error) => {
                        assert!(error.is_carrier_trouble(), "{error}");
                        scene.second.inner.set_online(true);
                        tokio::time::sleep(PAUSES.first).await;
                    }
                }
            }
        };
        let outcome = tokio::time::timeout(Duration::from_secs(60), sent).await.expect("in time");
        assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    }
    let log = scene.server.log();
    let ids: BTreeSet<_> = log.iter().map(|record| record.record.id).collect();
    assert_eq!((log.len(), ids.len()), (20, 20), "nothing lost, nothing doubled");
}

#[tokio::test(start_paused = true)]
async fn events_go_on_through_the_second_carrier_and_return_to_the_first() {
    let scene = Scene::new();
    let mut events = scene.subscribe().await;
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
    assert_eq!(scene.second.calls(), 0, "one carrier is enough");

    scene.first.inner.set_online(false);
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second carrier takes over");
    scene.colleague_writes(2).await;
    hears(&mut events, 2).await;

    scene.first.inner.set_online(true);
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the first carrier is back");
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second one was let go");
    scene.second.inner.set_online(false);
    scene.colleague_writes(3).await;
    hears(&mut events, 3).await;
}

#[tokio::test(start_paused = true)]
async fn events_begin_when_a_carrier_comes_at_last() {
    let scene = Scene::new();
    scene.first.inner.set_online(false);
    scene.second.inner.set_online(false);
    let mut events = scene.subscribe().await;
    let silence = tokio::time::timeout(Duration::from_secs(10), events.next()).await;
    assert!(silence.is_err(), "nothing to hear: {silence:?}");
    assert!(scene.first.calls() < 200, "it backs off");

    scene.first.inner.set_online(true);
    assert_eq!(next(&mut events).await, Ingress::Wakeup);
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_carrier_whose_calls_fail_is_not_relied_on_for_events() {
    let scene = Scene::new();
    let mut events = scene.subscribe().await;
    scene.first.fail_with(Some(unavailable()));
    scene.session().await.expect("the second carrier serves");
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "the second carrier's events begin");
    scene.first.inner.lose_next_slices(1);
    scene.colleague_writes(1).await;
    hears(&mut events, 1).await;
}

#[tokio::test]
async fn no_carrier_at_all_is_a_clear_error() {
    let failover = Failover::new(vec![]);
    let error = failover.session(&SessionRequest { client_id: client(1) }).await.expect_err("nobody to ask");
    assert_eq!(error.to_string(), "Offline is unavailable: no carrier is configured");
    assert!(failover.subscribe(&[project()]).await.expect("no fault").is_none());
}
