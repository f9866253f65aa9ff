//! One device with two carriers to a server.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Epoch, Hlc, Patch,
    RecordBody, RowId, TableName, UserId, Value,
};
use synchrotron_core::network::memory::{MemoryNetwork, MemoryServer};
use synchrotron_core::network::{Carrier, Failover, FailoverPauses, Ingress, Network, NetworkError};
use synchrotron_core::wire::{Outcome, Session, SessionRequest, UploadBatch, UploadRecord};
use uuid::Uuid;

use crate::faulty::Faulty;

const NOW_MS: i64 = 1_800_000_000_000;
pub(crate) const PAUSES: FailoverPauses =
    FailoverPauses { first: Duration::from_millis(100), longest: Duration::from_millis(400) };

pub(crate) fn server() -> MemoryServer {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), NOW_MS);
    server.set_snapshot_rows_max(50);
    server
}

/// One device with two carriers to a server, and a colleague with a carrier of its own.
pub(crate) struct Scene {
    pub(crate) server: MemoryServer,
    pub(crate) first: Arc<Faulty>,
    pub(crate) second: Arc<Faulty>,
    pub(crate) failover: Failover,
    colleague: MemoryNetwork,
}

pub(crate) const DEVICE: u128 = 1;
const COLLEAGUE: u128 = 2;

impl Scene {
    pub(crate) fn new() -> Self {
        let server = server();
        let alice = user("alice");
        server.allow(&alice, &project());
        let first = Faulty::live(server.connect(alice.clone()), Carrier::Nats);
        let second = Faulty::live(server.connect(alice.clone()), Carrier::Memory);
        let failover = Failover::with_pauses(vec![Arc::clone(&first) as _, Arc::clone(&second) as _], PAUSES);
        let colleague = server.connect(alice);
        Self { server, first, second, failover, colleague }
    }

    pub(crate) async fn session(&self) -> Result<Session, NetworkError> {
        self.failover.session(&SessionRequest { client_id: client(DEVICE) }).await
    }

    /// The `n`th seat, as a batch.
    pub(crate) fn batch(&self, device: u128, n: u128) -> UploadBatch {
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

    pub(crate) async fn colleague_writes(&self, n: u128) {
        let outcome = self.colleague.upload(&self.batch(COLLEAGUE, n)).await;
        assert!(matches!(outcome, Ok(Outcome::Accepted { .. })), "{outcome:?}");
    }

    pub(crate) async fn subscribe(&self) -> BoxStream<'static, Ingress> {
        self.failover.subscribe(&[project()]).await.expect("no fault").expect("push")
    }
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).expect("a good name")
}

pub(crate) fn client(n: u128) -> ClientId {
    ClientId::from_uuid(Uuid::from_u128(n))
}

pub(crate) fn project() -> AudienceKey {
    AudienceKey::new("project:1").expect("a good key")
}

pub(crate) fn unavailable() -> NetworkError {
    NetworkError::Unavailable { carrier: Carrier::Nats, detail: "away".to_owned() }
}
