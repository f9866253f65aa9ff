//! Snapshots where several processes answer: any of them may get the request, one holds the snapshot.

use std::sync::Arc;

use synchrotron_core::network::{Network, NetworkError, StaticToken};
use synchrotron_core::wire::{FaultCode, SnapshotChunk, SnapshotPosition, SnapshotRequest};
use synchrotron_http::HttpNetwork;
use synchrotron_server::{RunningServer, Server};
use synchrotron_testkit::wait_for;

use crate::stack::{Device, PATIENCE, Stack, key, token};

const SEATS: usize = 40;
const LABEL_BYTES: usize = 20_000;

impl Device {
    async fn chunk(&self, resume: Option<SnapshotPosition>) -> Result<SnapshotChunk, NetworkError> {
        self.chunk_by(&self.network, resume).await
    }

    async fn chunk_by(
        &self,
        network: &dyn Network,
        resume: Option<SnapshotPosition>,
    ) -> Result<SnapshotChunk, NetworkError> {
        let (client_id, epoch) = (self.client_id, self.session.epoch);
        let request = SnapshotRequest { client_id, epoch, audiences: vec![key("project:1")], ids: Vec::new(), resume };
        network.snapshot(&request).await
    }
}

fn after(chunk: &SnapshotChunk) -> Option<SnapshotPosition> {
    (!chunk.last).then(|| SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position })
}

/// Two processes, and a device whose snapshot takes several chunks.
async fn two_processes() -> (Stack, RunningServer, Device) {
    let stack = Stack::start().await;
    let other = Server::start(stack.settings.clone()).await.expect("a second process");
    let alice = stack.device("alice", &["project:1"]).await;
    for number in 0..SEATS {
        alice.accepted(&alice.seat_labelled(&format!("s{number}"), "project:1", &"x".repeat(LABEL_BYTES))).await;
    }
    (stack, other, alice)
}

#[tokio::test]
async fn any_process_leads_to_the_one_that_holds_the_snapshot() {
    let (stack, other, alice) = two_processes().await;
    let mut held = Vec::new();
    // NATS chooses at random: until each of the two has held one that the other was asked for, as good as surely.
    for _ in 0..12 {
        let mut chunk = alice.chunk(None).await.expect("a snapshot");
        held.push(synchrotron_server::service::ProcessId::holding(chunk.position.snapshot_id));
        let mut rows = chunk.rows.len();
        while let Some(next) = after(&chunk) {
            chunk = alice.chunk(Some(next)).await.expect("whoever is asked");
            rows += chunk.rows.len();
        }
        assert_eq!(rows, SEATS);
        if held.contains(&other.service().process_id()) && held.contains(&stack.server.service().process_id()) {
            break;
        }
    }

    let mut chunk = alice.chunk(None).await.expect("a snapshot");
    while synchrotron_server::service::ProcessId::holding(chunk.position.snapshot_id) != other.service().process_id() {
        chunk = alice.chunk(None).await.expect("a snapshot");
    }
    other.shutdown().await;
    let answer = alice.chunk(after(&chunk)).await;
    assert!(matches!(&answer, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::SnapshotGone), "{answer:?}");
}

/// A balancer may send each call of a device to another server: with NATS, each answers.
#[tokio::test]
async fn a_snapshot_over_http_goes_on_at_whichever_process_is_asked() {
    let (stack, other, alice) = two_processes().await;
    let network = |server: &RunningServer| {
        let token = Arc::new(StaticToken::new(token("alice", 3_600)));
        HttpNetwork::new(&format!("http://{}", server.http_addr()), token).expect("a URL")
    };
    let networks = [network(&stack.server), network(&other)];
    let mut chunk = alice.chunk_by(&networks[0], None).await.expect("a snapshot");
    // The second process may still be on its way to NATS; what is asked for again is the same.
    let second = async || alice.chunk_by(&networks[1], after(&chunk)).await.ok();
    wait_for("the second process to reach the first", PATIENCE, second).await.expect("reached");
    let (mut rows, mut chunks) = (chunk.rows.len(), 1);
    while let Some(next) = after(&chunk) {
        chunk = alice.chunk_by(&networks[chunks % 2], Some(next)).await.expect("whoever is asked");
        (rows, chunks) = (rows + chunk.rows.len(), chunks + 1);
    }
    assert_eq!(rows, SEATS);
    assert!(chunks > 2, "{chunks}");

    let chunk = alice.chunk_by(&networks[1], None).await.expect("a snapshot");
    other.shutdown().await;
    let answer = alice.chunk_by(&networks[0], after(&chunk)).await;
    assert!(matches!(&answer, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::SnapshotGone), "{answer:?}");
}
