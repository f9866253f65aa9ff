//! The client: one request per call, one token until it is refused.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError, TokenSource};
use synchrotron_core::wire::{
    self, DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Reply, Session,
    SessionRequest, SnapshotChunk, SnapshotRequest, UploadBatch, WireError,
};

use crate::routes;
use crate::settings::{HttpSettings, SetupError};
use crate::tokens::Tokens;

/// A [`Network`] over HTTP. It has no push: [`Network::subscribe`] gives `None`.
pub struct HttpNetwork {
    base: Url,
    client: Client,
    settings: HttpSettings,
    tokens: Tokens,
}

/// One kind of call.
struct Call {
    name: &'static str,
    path: &'static str,
    within: Duration,
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
        let base = Url::parse(base_url).map_err(|error| SetupError::BaseUrl { detail: error.to_string() })?;
        match base.scheme() {
            "http" => {}
            "https" if cfg!(feature = "tls") => {}
            "https" => return Err(SetupError::TlsMissing),
            other => return Err(SetupError::BaseUrl { detail: format!("scheme {other}") }),
        }
        install_crypto();
        let client = Client::builder()
            .connect_timeout(settings.connect_within)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("synchrotron/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { base, client, settings, tokens: Tokens::new(tokens) })
    }

    /// Makes a call; with a new token once more if the server refuses the one that was used.
    async fn call<Q, A>(&self, call: Call, request: &Q) -> Result<A, NetworkError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned,
    {
        let body = wire::encode(request);
        let max = self.settings.request_bytes_max;
        if body.len() > max {
            return Err(NetworkError::TooLarge { carrier: Carrier::Http, max, actual: body.len() });
        }
        let held = self.tokens.token().await?;
        let answer = self.exchange(&call, &held.token, body.clone()).await;
        if !is_unauthenticated(&answer) {
            return answer;
        }
        let Some(fresh) = self.tokens.other_than(&held).await? else { return answer };
        tracing::debug!(call = call.name, "the token was refused, trying a new one");
        let answer = self.exchange(&call, &fresh.token, body).await;
        if is_unauthenticated(&answer) {
            self.tokens.forget(&fresh).await;
        }
        answer
    }

    /// One request and its answer, in time.
    async fn exchange<A: DeserializeOwned>(&self, call: &Call, token: &str, body: Vec<u8>) -> Result<A, NetworkError> {
        let timeout = || NetworkError::Timeout {
            carrier: Carrier::Http,
            call: call.name,
            after_ms: u64::try_from(call.within.as_millis()).unwrap_or(u64::MAX),
        };
        let mut bearer = HeaderValue::try_from(format!("{}{token}", routes::BEARER))
            .map_err(|_| NetworkError::Token("it holds characters that no header can".to_owned()))?;
        bearer.set_sensitive(true);
        let request = self
            .client
            .post(self.url(call.path))
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, routes::MESSAGEPACK)
            .header(ACCEPT, routes::MESSAGEPACK)
            .body(body);
        let exchange = async {
            let response = request.send().await.map_err(unavailable)?;
            let status = response.status();
            if !is_message(&response) {
                return Err(not_ours(status));
            }
            let bytes = read_bounded(response, self.settings.response_bytes_max).await?;
            let reply: Reply<A> = wire::decode(&bytes, self.settings.response_bytes_max)?;
            Result::from(reply).map_err(NetworkError::Fault)
        };
        tokio::time::timeout(call.within, exchange).await.map_err(|_elapsed| timeout())?
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

#[async_trait]
impl Network for HttpNetwork {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        let call = Call { name: "session", path: routes::SESSION, within: self.settings.session_within };
        self.call(call, request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        let call = Call { name: "fetch", path: routes::FETCH, within: self.settings.fetch_within };
        self.call(call, request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        let call = Call { name: "upload", path: routes::UPLOAD, within: self.settings.upload_within };
        self.call(call, batch).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        let call = Call { name: "snapshot", path: routes::SNAPSHOT, within: self.settings.snapshot_within };
        self.call(call, request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        let call = Call { name: "digest", path: routes::DIGEST, within: self.settings.digest_within };
        self.call(call, request).await
    }

    async fn subscribe(&self, _audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(None)
    }

    fn carrier(&self) -> Carrier {
        Carrier::Http
    }
}

impl fmt::Debug for HttpNetwork {
    /// Without the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpNetwork").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

fn is_unauthenticated<A>(answer: &Result<A, NetworkError>) -> bool {
    matches!(answer, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::Unauthenticated)
}

fn is_message(response: &Response) -> bool {
    response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == routes::MESSAGEPACK.as_bytes())
}

/// An answer of something between us and the server, or of no server of ours.
fn not_ours(status: StatusCode) -> NetworkError {
    if status == StatusCode::UNAUTHORIZED {
        return Fault::new(FaultCode::Unauthenticated, "refused on the way to the server").into();
    }
    NetworkError::Unavailable { carrier: Carrier::Http, detail: format!("{status}, and no message of ours") }
}

/// Reads the body as it comes, and stops at the bound whatever length was declared.
async fn read_bounded(mut response: Response, max: usize) -> Result<Vec<u8>, NetworkError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
        let actual = bytes.len() + chunk.len();
        if actual > max {
            return Err(WireError::TooLarge { max, actual }.into());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The error's whole story, which reqwest keeps in its sources.
fn unavailable(error: reqwest::Error) -> NetworkError {
    let error = error.without_url();
    let mut detail = error.to_string();
    let mut source = error.source();
    while let Some(deeper) = source {
        detail.push_str(": ");
        detail.push_str(&deeper.to_string());
        source = deeper.source();
    }
    NetworkError::Unavailable { carrier: Carrier::Http, detail }
}

/// Gives rustls its cryptography, unless the program has chosen one. A client with TLS wants it whatever its URL.
fn install_crypto() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // The loser of a race finds the winner's provider, which serves as well.
        let _lost_race = rustls::crypto::ring::default_provider().install_default();
    }
}
