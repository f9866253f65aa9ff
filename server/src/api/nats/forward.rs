//! Requests that only one process can answer: another hands them on, and the answer back.
//!
//! Place in the journey: beneath [`Service::snapshot`](crate::service::Service::snapshot). A device's request comes to any
//! one process, by NATS or by a balancer of HTTP, and a snapshot goes on in the one that began it.
//!
//! Invariant: only our processes can publish there: nothing of it is exported to devices.

use std::time::Duration;

use async_nats::{StatusCode, Subject};
use async_trait::async_trait;
use futures::StreamExt;
use synchrotron_core::model::UserId;
use synchrotron_core::wire::{self, Fault, FaultCode, Reply, SnapshotChunk, SnapshotRequest};
use synchrotron_nats::link::Link;
use synchrotron_nats::subjects::{ProcessToken, Subjects, UserToken};

use super::rpc::in_time;
use crate::service::{OtherProcesses, ProcessId};

/// As much of an answer as a device reads.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// The other processes, reached by NATS.
#[derive(Debug)]
pub(super) struct Neighbours {
    pub(super) link: Link,
    pub(super) subjects: Subjects,
    pub(super) within: Duration,
}

#[async_trait]
impl OtherProcesses for Neighbours {
    fn are_reachable(&self) -> bool {
        self.link.state().connected
    }

    async fn snapshot(
        &self,
        holder: ProcessId,
        user_id: &UserId,
        request: &SnapshotRequest,
    ) -> Result<SnapshotChunk, Fault> {
        let process = ProcessToken::new(holder.number());
        let held = self.subjects.held(process, &UserToken::of(user_id), request.client_id);
        in_time(self.within, self.ask(held, request)).await
    }
}

impl Neighbours {
    async fn ask(&self, held: Subject, request: &SnapshotRequest) -> Result<SnapshotChunk, Fault> {
        let client = self.link.client();
        let away = |_| Fault::new(FaultCode::Unavailable, "the server cannot reach its other processes now");
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await.map_err(|error| away(error.to_string()))?;
        let published = client.publish_with_reply(held, inbox, wire::encode(request).into()).await;
        published.map_err(|error| away(error.to_string()))?;
        let answer = answers.next().await.ok_or_else(|| away(String::new()))?;
        if answer.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Fault::new(FaultCode::SnapshotGone, "the process that held it is gone"));
        }
        let reply = wire::decode::<Reply<SnapshotChunk>>(&answer.payload, ANSWER_BYTES_MAX);
        reply.map_err(|error| away(error.to_string()))?.into()
    }
}
