//! The client: one connection, what is said of its uploads, and the carrier that it is.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use async_nats::client::{PublishError, PublishErrorKind};
use async_trait::async_trait;
use futures::stream::BoxStream;
use synchrotron_core::model::{AudienceKey, ClientId, UserId};
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError, TokenSource};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

use crate::link::{Denial, DeniedAction, Link, LinkOptions, Login, denied};
use crate::renewal::Renewal;
use crate::settings::NatsSettings;
use crate::subjects::{RpcMethod, Subjects, UserToken, inbox_prefix};
use crate::uplink::Answers;

/// A [`Network`] over NATS, for one device of one user.
pub struct NatsNetwork {
    pub(crate) link: Link,
    pub(crate) settings: NatsSettings,
    pub(crate) subjects: Subjects,
    pub(crate) user_id: UserId,
    pub(crate) client_id: ClientId,
    pub(crate) renewal: Renewal,
    pub(crate) answers: Answers,
    renewing: AbortHandle,
}

impl Drop for NatsNetwork {
    fn drop(&mut self) {
        self.renewing.abort();
    }
}

impl NatsNetwork {
    /// Begins to connect, and returns; also when NATS is away, which calls then say at once. `user_id` must be the user of
    /// the tokens: NATS lets it do nothing in another one's name. The token is asked for with each connection, and shortly
    /// before the last one expires.
    pub async fn connect(
        settings: NatsSettings,
        user_id: UserId,
        client_id: ClientId,
        tokens: Arc<dyn TokenSource>,
    ) -> Self {
        let user = UserToken::of(&user_id);
        let link = Link::connect(LinkOptions {
            servers: settings.servers.clone(),
            login: Login::Token(tokens, settings.token_within),
            tls: settings.tls.clone(),
            name: "synchrotron-client",
            // Whoever knew it could have an answer of its own sent there.
            inbox_prefix: format!("{}.{}", inbox_prefix(&user), Uuid::new_v4().simple()),
            connect_within: settings.connect_within,
            reconnect_pause_max: settings.reconnect_pause_max,
            ping_every: settings.ping_every,
            capacity: settings.live_capacity,
        })
        .await;
        let subjects = Subjects::new(settings.prefix.clone());
        let outcome = subjects.outcome(&user, client_id);
        let answers = Answers::listen(link.client(), outcome, settings.message_bytes_max).await;
        let told = link.client().subscribe(subjects.ctl(&user)).await;
        let told = told.expect("BUG: the client was just made, and our subjects are valid");
        let renewal = Renewal::new(link.clone());
        let renewing = tokio::spawn(renewal.clone().watch(told)).abort_handle();
        Self { link, settings, subjects, user_id, client_id, renewal, answers, renewing }
    }

    /// Whether NATS is there, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.link.connected()
    }

    /// How often it connected: rights and tokens are replaced by connecting anew.
    #[must_use]
    pub fn connects(&self) -> u64 {
        self.link.state().connects
    }

    /// The number of the connection that is up.
    pub(crate) fn require_connection(&self) -> Result<u64, NetworkError> {
        let state = self.link.state();
        if state.connected {
            return Ok(state.connects);
        }
        Err(self.link.refusal().unwrap_or_else(|| unavailable("not connected")))
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
            () = tokio::time::sleep(within) => Err(late(call, within)),
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

/// Waits until NATS does not let this connection publish there.
pub(crate) async fn publish_denied(denials: &mut broadcast::Receiver<Denial>, subject: &Subject) -> NetworkError {
    let concerns = |denial: &Denial| denial.action == DeniedAction::Publish && denial.subject == subject.as_str();
    not_permitted(&denied(denials, concerns).await)
}

fn not_permitted(denial: &Denial) -> NetworkError {
    let verb = match denial.action {
        DeniedAction::Publish => "publishing to",
        DeniedAction::Subscribe => "listening to",
    };
    NetworkError::NotPermitted { carrier: Carrier::Nats, what: format!("{verb} {}", denial.subject) }
}

pub(crate) fn late(call: &'static str, within: Duration) -> NetworkError {
    let after_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
    NetworkError::Timeout { carrier: Carrier::Nats, call, after_ms }
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
