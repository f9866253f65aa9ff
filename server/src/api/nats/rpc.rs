//! Requests and replies: `session`, `fetch`, `snapshot` and `digest`.
//!
//! Place in the journey: a device asks before and after it uploads. Any server process answers.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Message, Subject};
use futures::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::ClientId;
use synchrotron_core::wire::{
    self, DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Reply, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest,
};
use synchrotron_nats::subjects::{ProcessToken, RpcMethod};
use tokio_util::task::AbortOnDropHandle;

use super::admission::Asked;
use super::{Api, NatsApiError, QUEUE, account};
use crate::api::fault::unreadable;
use crate::auth::Principal;

/// Only inboxes are answered: those of our own processes, and what NATS makes of a device's. What a device named lies in
/// its own account, where no subject leads to a stream.
const INBOXES: [&str; 2] = ["_INBOX.", "_R_."];
/// Requests are small: a client id and a cursor per audience, or some thousand ids.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// Answers requests until the connection is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    account::require_ours(&api.link, &api.settings.clients_account)?;
    let client = api.link.client();
    // Where other processes hand on what this one holds.
    let own_held = api.subjects.all_held(ProcessToken::new(api.service.process_id().number()));
    let requests = client.queue_subscribe(api.subjects.all_rpc(), QUEUE.to_owned()).await?;
    let requests = futures::stream::select(requests, client.subscribe(own_held).await?);
    tracing::info!("answers requests over NATS");
    // A task of its own: what waits too long to be taken out of the line is dropped, whoever sent it.
    let answering = AbortOnDropHandle::new(tokio::spawn(answer_all(Arc::clone(api), requests)));
    tokio::select! {
        _ended = answering => Err(NatsApiError::Ended),
        () = api.link.lost(connects) => Err(NatsApiError::Lost),
    }
}

async fn answer_all(api: Arc<Api>, mut requests: impl Stream<Item = Message> + Unpin) {
    while let Some(request) = requests.next().await {
        let Some(inbox) = request.reply.clone().filter(|reply| INBOXES.iter().any(|inbox| reply.starts_with(inbox)))
        else {
            tracing::debug!("a request that nobody waits for");
            continue;
        };
        match api.admission.admit(&api.subjects, &request) {
            Ok(asked) => {
                let api = Arc::clone(&api);
                tokio::spawn(async move { api.answer(inbox, asked, &request).await });
            }
            Err(Some(fault)) => api.reply::<()>(inbox, Err(fault)).await,
            Err(None) => {}
        }
    }
}

impl Api {
    async fn answer(&self, inbox: Subject, asked: Asked, request: &Message) {
        let Asked { subject, .. } = &asked;
        let principal = Self::sender(&subject.user);
        match subject.method {
            RpcMethod::Session => {
                let session = self.session(&principal, subject.client_id, &request.payload).await;
                self.reply(inbox, session).await;
            }
            RpcMethod::Fetch => {
                let page = self.fetch(&principal, subject.client_id, &request.payload).await;
                self.reply(inbox, page).await;
            }
            RpcMethod::Snapshot => {
                let chunk = self.snapshot(&principal, subject.client_id, &request.payload).await;
                self.reply(inbox, chunk).await;
            }
            RpcMethod::Digest => {
                let digests = self.digest(&principal, subject.client_id, &request.payload).await;
                self.reply(inbox, digests).await;
            }
        }
    }

    async fn session(&self, principal: &Principal, client_id: ClientId, payload: &[u8]) -> Result<Session, Fault> {
        let request: SessionRequest = read(payload)?;
        same_device(request.client_id, client_id)?;
        self.in_time(self.service.session(principal, request)).await
    }

    async fn fetch(&self, principal: &Principal, client_id: ClientId, payload: &[u8]) -> Result<FetchPage, Fault> {
        let request: FetchRequest = read(payload)?;
        same_device(request.client_id, client_id)?;
        self.in_time(self.service.fetch(principal, request)).await
    }

    async fn snapshot(
        &self,
        principal: &Principal,
        client_id: ClientId,
        payload: &[u8],
    ) -> Result<SnapshotChunk, Fault> {
        let request: SnapshotRequest = read(payload)?;
        same_device(request.client_id, client_id)?;
        self.in_time(self.service.snapshot(principal, request)).await
    }

    async fn digest(&self, principal: &Principal, client_id: ClientId, payload: &[u8]) -> Result<DigestReply, Fault> {
        let request: DigestRequest = read(payload)?;
        same_device(request.client_id, client_id)?;
        self.in_time(self.service.digest(principal, request)).await
    }

    pub(super) async fn in_time<A>(&self, serving: impl Future<Output = Result<A, Fault>>) -> Result<A, Fault> {
        in_time(self.settings.request_within, serving).await
    }

    /// Answers; an answer that NATS would not carry becomes a fault, and another carrier may bring it.
    pub(super) async fn reply<A: Serialize>(&self, inbox: Subject, answer: Result<A, Fault>) {
        if let Err(fault) = &answer {
            tracing::debug!(error = %fault, "not served");
        }
        let client = self.link.client();
        let max = client.max_payload();
        let mut bytes = wire::encode_compressed(&Reply::from(answer));
        if bytes.len() > max {
            let fault = Fault::new(FaultCode::TooLarge, format!("answer of {} bytes, NATS takes {max}", bytes.len()));
            bytes = wire::encode(&Reply::<A>::Fault(fault));
        }
        if let Err(error) = client.publish(inbox, bytes.into()).await {
            tracing::debug!(%error, "an answer could not be sent");
        }
    }
}

pub(super) async fn in_time<A>(within: Duration, serving: impl Future<Output = Result<A, Fault>>) -> Result<A, Fault> {
    let served = tokio::time::timeout(within, serving).await;
    served.unwrap_or_else(|_| Err(Fault::new(FaultCode::Unavailable, format!("not served within {within:?}"))))
}

fn read<Q: DeserializeOwned>(payload: &[u8]) -> Result<Q, Fault> {
    wire::decode(payload, REQUEST_BYTES_MAX).map_err(|error| unreadable(&error))
}

/// A device asks for itself. NATS lets it publish to subjects of its user's other devices, too.
fn same_device(asked: ClientId, subject: ClientId) -> Result<(), Fault> {
    if asked == subject {
        Ok(())
    } else {
        Err(Fault::new(FaultCode::ForeignClient, "the request's client_id is not the subject's"))
    }
}
