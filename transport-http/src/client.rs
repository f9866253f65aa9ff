//! The client: what the engine asks of a network, as requests.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError, TokenSource};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};

use crate::events;
use crate::link::{Call, Link};
use crate::routes;
use crate::settings::{HttpSettings, SetupError};

/// A [`Network`] over HTTP. Its stream holds no rows: it says when to fetch.
pub struct HttpNetwork {
    link: Arc<Link>,
}

impl HttpNetwork {
    /// A client of the server at `base_url` (`http://host:port`, with a path if the server is behind one).
    ///
    /// # Errors
    /// [`SetupError`] if that is no such URL.
    pub fn new(base_url: &str, tokens: Arc<dyn TokenSource>) -> Result<Self, SetupError> {
        Self::with_settings(base_url, tokens, HttpSettings::default())
    }

    /// The same with other bounds.
    ///
    /// # Errors
    /// [`SetupError`] if the URL is not a server's.
    pub fn with_settings(
        base_url: &str,
        tokens: Arc<dyn TokenSource>,
        settings: HttpSettings,
    ) -> Result<Self, SetupError> {
        Ok(Self { link: Arc::new(Link::new(base_url, tokens, settings)?) })
    }

    async fn call<Q, A>(
        &self,
        name: &'static str,
        path: &'static str,
        within: Duration,
        request: &Q,
    ) -> Result<A, NetworkError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned + Send,
    {
        Ok(self.link.call(Call { name, path, within }, request).await?.message)
    }
}

#[async_trait]
impl Network for HttpNetwork {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        let call = Call { name: "session", path: routes::SESSION, within: self.link.settings.session_within };
        let answered = self.link.call::<_, Session>(call, request).await?;
        let server_time_ms = answered.server_time_ms.unwrap_or(answered.message.server_time_ms);
        Ok(Session { server_time_ms, ..answered.message })
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.call("fetch", routes::FETCH, self.link.settings.fetch_within, request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.call("upload", routes::UPLOAD, self.link.settings.upload_within, batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.call("snapshot", routes::SNAPSHOT, self.link.settings.snapshot_within, request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.call("digest", routes::DIGEST, self.link.settings.digest_within, request).await
    }

    /// Wakeups of all of the user's audiences, which the server knows. The stream comes about in the background and
    /// outlives every connection; its first wakeup says that it is heard.
    async fn subscribe(&self, _audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(self.link.settings.listen.then(|| events::stream(Arc::clone(&self.link))))
    }

    fn carrier(&self) -> Carrier {
        Carrier::Http
    }

    fn is_pushing(&self) -> bool {
        self.link.heard.load(Ordering::Relaxed) > 0
    }
}

impl fmt::Debug for HttpNetwork {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpNetwork").field("base", &self.link.base()).finish_non_exhaustive()
    }
}
