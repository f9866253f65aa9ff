//! The client: one connection, one outcome subscription, and the carrier that it is.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::{PublishError, PublishErrorKind};
use async_trait::async_trait;
use futures::stream::BoxStream;
use synchrotron_core::model::{AudienceKey, ClientId, UserId};
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError, TokenSource};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use tokio::sync::watch;

use crate::bearer::Tokens;
use crate::link::{Link, LinkOptions};
use crate::settings::NatsSettings;
use crate::subjects::{RpcMethod, Subjects, UserToken};
use crate::uplink::Outcomes;

/// A [`Network`] over NATS, for one device of one user.
pub struct NatsNetwork {
    pub(crate) link: Link,
    pub(crate) settings: NatsSettings,
    pub(crate) subjects: Subjects,
    pub(crate) user_id: UserId,
    pub(crate) client_id: ClientId,
    pub(crate) tokens: Tokens,
    pub(crate) outcomes: Outcomes,
}

impl NatsNetwork {
    /// Begins to connect, and returns; also when NATS is away, which calls then say at once. `user_id` must be the user of
    /// the tokens.
    pub async fn connect(
        settings: NatsSettings,
        user_id: UserId,
        client_id: ClientId,
        tokens: Arc<dyn TokenSource>,
    ) -> Self {
        let link = Link::connect(LinkOptions {
            servers: settings.servers.clone(),
            name: "synchrotron-client",
            connect_within: settings.connect_within,
            reconnect_pause_max: settings.reconnect_pause_max,
            ping_every: settings.ping_every,
            capacity: settings.live_capacity,
        })
        .await;
        let subjects = Subjects::new(settings.prefix.clone());
        let subject = subjects.outcome(&UserToken::of(&user_id), client_id);
        let outcomes = Outcomes::listen(link.client(), subject, settings.message_bytes_max).await;
        Self { link, settings, subjects, user_id, client_id, tokens: Tokens::new(tokens), outcomes }
    }

    /// Whether NATS is there, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.link.connected()
    }

    /// The number of the connection that is up.
    pub(crate) fn require_connection(&self) -> Result<u64, NetworkError> {
        let state = self.link.state();
        if state.connected { Ok(state.connects) } else { Err(unavailable("not connected")) }
    }

    /// Does some work of a call, until it is late or the connection is lost.
    pub(crate) async fn bounded<T>(
        &self,
        call: &'static str,
        within: Duration,
        connects: u64,
        work: impl Future<Output = Result<T, NetworkError>>,
    ) -> Result<T, NetworkError> {
        tokio::select! {
            biased;
            done = work => done,
            () = self.link.lost(connects) => Err(unavailable("the connection was lost")),
            () = tokio::time::sleep(within) => Err(NetworkError::Timeout {
                carrier: Carrier::Nats,
                call,
                after_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// Why `bytes` could not be published.
    pub(crate) fn publish_error(&self, error: &PublishError, bytes: usize) -> NetworkError {
        match error.kind() {
            PublishErrorKind::MaxPayloadExceeded => {
                NetworkError::TooLarge { carrier: Carrier::Nats, max: self.link.client().max_payload(), actual: bytes }
            }
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => unavailable(error.to_string()),
        }
    }
}

pub(crate) fn unavailable(detail: impl Into<String>) -> NetworkError {
    NetworkError::Unavailable { carrier: Carrier::Nats, detail: detail.into() }
}

#[async_trait]
impl Network for NatsNetwork {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.call(RpcMethod::Session, self.settings.session_within, request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.call(RpcMethod::Fetch, self.settings.fetch_within, request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.offer(batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.call(RpcMethod::Snapshot, self.settings.snapshot_within, request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.call(RpcMethod::Digest, self.settings.digest_within, request).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        self.listen(audiences).await.map(Some)
    }

    fn carrier(&self) -> Carrier {
        if self.link.state().connected { Carrier::Nats } else { Carrier::Offline }
    }
}

impl fmt::Debug for NatsNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NatsNetwork")
            .field("user_id", &self.user_id)
            .field("client_id", &self.client_id)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}
