//! The server in this process: the conformance suite, and what it offers to tests beyond it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursor, Cursors, Effect, Epoch, Hlc,
    Patch, RecordBody, RowId, RowKey, TableName, UserId, Value,
};
use synchrotron_core::network::memory::{MemoryServer, PageBounds};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    Fault, FaultCode, FetchRequest, Outcome, RejectionKind, SessionRequest, SnapshotPosition, SnapshotRequest,
    UploadBatch, UploadRecord,
};
use uuid::Uuid;

const NOW_MS: i64 = 1_800_000_000_000;

struct Fixture(MemoryServer);

impl Fixture {
    fn new() -> Self {
        let server = server();
        server.set_page_bounds(PageBounds { records_max: 7, bytes_max: 20_000 });
        Self(server)
    }
}

#[async_trait]
impl NetworkFixture for Fixture {
    async fn connect(&self, user: &UserId, _client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
        Ok(Arc::new(self.0.connect(user.clone())))
    }

    async fn allow(&self, user: &UserId, audience: &AudienceKey) {
        self.0.allow(user, audience);
    }

    async fn server_row(&self, row: &RowKey) -> Option<Columns> {
        self.0.rows(&row.table).remove(&row.row_id).map(|row| row.columns)
    }
}

synchrotron_core::network_suite!(Fixture::new());

fn server() -> MemoryServer {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), NOW_MS);
    server.set_snapshot_rows_max(50);
    server
}

fn user(name: &str) -> UserId {
    UserId::new(name).expect("a good name")
}

fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("a good key")
}

fn client(n: u128) -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(n))
}

fn patch(id: &str, key: &str, effect: Effect) -> Patch {
    Patch {
        sequence: 0,
        table: TableName::new("seats").expect("a good name"),
        row_id: RowId::new(id).expect("a good id"),
        audience_key: audience(key),
        effect,
    }
}

fn holder(name: &str) -> Columns {
    Columns::from([("holder".to_owned(), Value::from(name))])
}

/// The `n`th action, at the `n`th moment.
fn action(n: u128, rows: Vec<Patch>) -> UploadRecord {
    let body = RecordBody::Action {
        tag: ActionTag::new("test_v1").expect("a good tag"),
        args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
    };
    let moment = i64::try_from(n).expect("small");
    let rows = (0..).zip(rows).map(|(sequence, patch)| Patch { sequence, ..patch }).collect();
    UploadRecord {
        id: ActionId::from_uuid(Uuid::from_u128(n)),
        clock: Hlc::at_millis(moment),
        body,
        rows,
        trace_parent: None,
    }
}

fn batch(server: &MemoryServer, client_id: ClientId, records: Vec<UploadRecord>) -> UploadBatch {
    let batch_id = BatchId::from_uuid(Uuid::from_u128(9));
    UploadBatch { batch_id, client_id, epoch: server.epoch(), basis: Cursors::new(), records }
}

async fn upload(network: &dyn Network, batch: &UploadBatch) -> Outcome {
    network.upload(batch).await.expect("online")
}

fn is_accepted(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Accepted { .. })
}

#[tokio::test]
async fn rows_are_shown_to_members_as_they_fold() {
    let server = server();
    let alice = user("alice");
    server.allow(&alice, &audience("p"));
    server.allow(&alice, &audience("q"));
    let network = server.connect(alice.clone());
    let rows = vec![patch("a", "p", Effect::Insert(holder("x"))), patch("b", "q", Effect::Insert(holder("y")))];
    let update = action(2, vec![patch("a", "p", Effect::Update(holder("z")))]);
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![action(1, rows), update])).await));

    server.revoke(&alice, &audience("q"));
    let visible = server.rows_visible_to(&alice);
    assert_eq!(visible.values().map(|row| &row.columns).collect::<Vec<_>>(), [&holder("z")]);
    assert_eq!(server.rows(&TableName::new("seats").expect("ok")).len(), 2);
    assert_eq!(server.log().iter().map(|record| record.row_count).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((server.head(&audience("p")), server.head(&audience("q"))), (Cursor::new(2), Cursor::new(1)));
}

#[tokio::test]
async fn a_row_moves_between_audiences_only_through_a_delete() {
    let server = server();
    let alice = user("alice");
    for key in ["p", "q"] {
        server.allow(&alice, &audience(key));
    }
    let network = server.connect(alice);
    let created = action(10, vec![patch("a", "p", Effect::Insert(holder("x")))]);
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![created])).await));

    let moved = |n, effects: Vec<Patch>| batch(&server, client(1), vec![action(n, effects)]);
    let taken = upload(&network, &moved(20, vec![patch("a", "q", Effect::Insert(holder("x")))])).await;
    assert!(matches!(taken, Outcome::Rejected { kind: RejectionKind::AudienceMismatch, .. }), "{taken:?}");
    // Also where it would come in beneath the row's present state.
    let beneath = upload(&network, &moved(5, vec![patch("a", "q", Effect::Insert(holder("x")))])).await;
    assert!(matches!(beneath, Outcome::Rejected { kind: RejectionKind::AudienceMismatch, .. }), "{beneath:?}");
    assert_eq!(server.log().len(), 1);

    let through_delete = vec![patch("a", "p", Effect::Delete), patch("a", "q", Effect::Insert(holder("x")))];
    assert!(is_accepted(&upload(&network, &moved(30, through_delete)).await));
    let rows = server.rows(&TableName::new("seats").expect("ok"));
    assert_eq!(rows.into_values().map(|row| row.audience_key).collect::<Vec<_>>(), [audience("q")]);
}

#[tokio::test]
async fn a_refused_batch_leaves_rows_and_log_as_they_were() {
    let server = server();
    let alice = user("alice");
    for key in ["p", "q"] {
        server.allow(&alice, &audience(key));
    }
    let network = server.connect(alice);
    let first = action(10, vec![patch("a", "p", Effect::Insert(holder("x")))]);
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![first])).await));
    let (rows, log) = (server.rows(&TableName::new("seats").expect("ok")), server.log());

    let late = action(5, vec![patch("a", "p", Effect::Insert(holder("late")))]);
    let update = action(20, vec![patch("a", "p", Effect::Update(holder("y")))]);
    let added = action(21, vec![patch("b", "q", Effect::Insert(holder("y")))]);
    let bad = action(22, vec![patch("a", "q", Effect::Delete)]);
    let outcome = upload(&network, &batch(&server, client(1), vec![late, update, added, bad.clone()])).await;
    assert!(matches!(outcome, Outcome::Rejected { action, .. } if action == bad.id), "{outcome:?}");
    assert_eq!(server.rows(&TableName::new("seats").expect("ok")), rows);
    assert_eq!(server.log(), log);
    assert_eq!(server.head(&audience("q")), Cursor::START);
}

#[tokio::test]
async fn a_correction_must_name_a_real_action_and_leave_each_row_in_one_audience() {
    let server = server();
    let alice = user("alice");
    for key in ["p", "q"] {
        server.allow(&alice, &audience(key));
    }
    let network = server.connect(alice);
    let amended = action(1, vec![patch("a", "p", Effect::Insert(holder("x")))]);
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![amended])).await));
    let position = server.log()[0].record.position();
    let correction = |amends, effects: Vec<Patch>| {
        let body = RecordBody::Correction { amends, reason: None };
        batch(&server, client(1), vec![UploadRecord { body, ..action(2, effects) }])
    };
    let (nothing, in_q) = (patch("a", "p", Effect::Nothing), patch("a", "q", Effect::Insert(holder("x"))));
    let elsewhere = synchrotron_core::model::ReplayKey { clock: Hlc::at_millis(7), ..position };
    let outcome = upload(&network, &correction(elsewhere, vec![nothing.clone()])).await;
    assert!(matches!(outcome, Outcome::Rejected { kind: RejectionKind::Malformed, .. }), "{outcome:?}");
    let outcome = upload(&network, &correction(position, vec![in_q.clone()])).await;
    assert!(matches!(outcome, Outcome::Rejected { kind: RejectionKind::AudienceMismatch, .. }), "{outcome:?}");
    // Judged together, in whichever order they are.
    assert!(is_accepted(&upload(&network, &correction(position, vec![in_q, nothing])).await));
    let rows = server.rows(&TableName::new("seats").expect("ok"));
    assert_eq!(rows.into_values().map(|row| row.audience_key).collect::<Vec<_>>(), [audience("q")]);
}

#[tokio::test]
async fn a_lost_outcome_is_committed_all_the_same() {
    let server = server();
    let alice = user("alice");
    server.allow(&alice, &audience("p"));
    let network = server.connect(alice);
    let batch = batch(&server, client(1), vec![action(1, vec![patch("a", "p", Effect::Insert(holder("x")))])]);
    network.lose_next_outcome();
    assert!(matches!(network.upload(&batch).await, Err(NetworkError::Timeout { .. })));
    assert_eq!(server.log().len(), 1);
    assert!(is_accepted(&upload(&network, &batch).await));
    assert_eq!(server.log().len(), 1);
}

#[tokio::test]
async fn a_cut_connection_fails_and_wakes_its_subscribers_when_it_is_mended() {
    let server = server();
    let alice = user("alice");
    server.allow(&alice, &audience("p"));
    let (network, other) = (server.connect(alice.clone()), server.connect(alice.clone()));
    let mut events = network.subscribe(&[audience("p")]).await.expect("online").expect("push");
    network.set_online(false);
    assert_eq!(network.carrier(), Carrier::Offline);
    let request = SessionRequest { client_id: client(1) };
    assert!(matches!(network.session(&request).await, Err(NetworkError::Unavailable { .. })));

    let insert =
        |n, id: &str| batch(&server, client(2), vec![action(n, vec![patch(id, "p", Effect::Insert(holder("x")))])]);
    assert!(is_accepted(&upload(&other, &insert(1, "missed")).await));
    network.set_online(true);
    let next = async |events: &mut futures::stream::BoxStream<'static, Ingress>| {
        tokio::time::timeout(Duration::from_secs(10), events.next()).await.expect("in time").expect("goes on")
    };
    assert_eq!(next(&mut events).await, Ingress::Wakeup);
    network.lose_next_slices(1);
    assert!(is_accepted(&upload(&other, &insert(2, "lost")).await));
    assert!(is_accepted(&upload(&other, &insert(3, "seen")).await));
    let Ingress::Slice(slice) = next(&mut events).await else { panic!("expected a slice") };
    assert_eq!((slice.prev, slice.through), (Cursor::new(2), Cursor::new(3)), "the gap shows");

    server.revoke(&alice, &audience("p"));
    assert_eq!(next(&mut events).await, Ingress::Wakeup, "a change of membership wakes");
}

#[tokio::test]
async fn another_epoch_begins_with_an_empty_log() {
    let server = server();
    let alice = user("alice");
    server.allow(&alice, &audience("p"));
    let network = server.connect(alice);
    let old = batch(&server, client(1), vec![action(1, vec![patch("a", "p", Effect::Insert(holder("x")))])]);
    assert!(is_accepted(&upload(&network, &old).await));
    let current = Epoch::from_uuid(Uuid::from_u128(2));
    server.begin_epoch(current);
    assert_eq!(upload(&network, &old).await, Outcome::EpochChanged { current });
    let request = FetchRequest { client_id: client(1), epoch: current, cursors: Cursors::new() };
    let page = network.fetch(&request).await.expect("online");
    assert_eq!((page.records, page.cursors), (vec![], Cursors::from([(audience("p"), Cursor::START)])));
}

#[tokio::test]
async fn a_membership_that_ends_ends_the_snapshot() {
    let server = server();
    server.set_snapshot_rows_max(1);
    let alice = user("alice");
    server.allow(&alice, &audience("p"));
    let network = server.connect(alice.clone());
    let rows = vec![patch("a", "p", Effect::Insert(holder("x")))];
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![action(1, rows)])).await));
    let rows = vec![patch("b", "p", Effect::Insert(holder("x")))];
    assert!(is_accepted(&upload(&network, &batch(&server, client(1), vec![action(2, rows)])).await));
    let begin = SnapshotRequest {
        client_id: client(1),
        epoch: server.epoch(),
        audiences: vec![audience("p")],
        ids: vec![],
        resume: None,
    };
    let first = network.snapshot(&begin).await.expect("online");
    assert!(!first.last);
    let next = SnapshotRequest { resume: Some(SnapshotPosition { chunk: 1, ..first.position }), ..begin };
    assert!(network.snapshot(&next).await.expect("online").last);
    server.revoke(&alice, &audience("p"));
    let fault = network.snapshot(&next).await.expect_err("no row of it leaves any more");
    assert!(matches!(fault, NetworkError::Fault(Fault { code: FaultCode::SnapshotGone, .. })), "{fault}");
}
