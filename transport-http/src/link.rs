//! One server over HTTP: requests with the token that holds, answers up to their bound.
//!
//! Place in the journey: beneath [`crate::HttpNetwork`]'s calls and its stream of events.

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::network::{Carrier, NetworkError, NumberedToken, TokenSource};
use synchrotron_core::wire::{Fault, FaultCode, Reply, WireError};

use crate::remembered::Remembered;
use crate::retry_after::RetryAfter;
use crate::routes;
use crate::settings::{HttpSettings, SetupError};
use crate::tokens::Tokens;

/// A connection that nobody uses is closed before the server closes it: a request that meets that is lost.
const IDLE_CONNECTIONS_FOR: Duration = Duration::from_secs(20);

pub(crate) struct Link {
    base: Url,
    client: Client,
    pub(crate) settings: HttpSettings,
    pub(crate) tokens: Tokens,
    retry_after: RetryAfter,
    remembered: Remembered,
    /// How many streams of events are heard now.
    pub(crate) heard: AtomicUsize,
}

/// One kind of call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) path: &'static str,
    pub(crate) within: Duration,
}

/// A message, and the server's clock if the message is one from before.
pub(crate) struct Answered<A> {
    pub(crate) message: A,
    pub(crate) server_time_ms: Option<i64>,
}

impl Link {
    pub(crate) fn new(
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
            .pool_idle_timeout(IDLE_CONNECTIONS_FOR)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("synchrotron/", env!("CARGO_PKG_VERSION")))
            .build()?;
        let (retry_after, heard) = (RetryAfter::new(settings.retry_after_max), AtomicUsize::new(0));
        Ok(Self {
            base,
            client,
            tokens: Tokens::new(tokens, settings.token_within),
            retry_after,
            remembered: Remembered::default(),
            heard,
            settings,
        })
    }

    pub(crate) fn base(&self) -> &str {
        self.base.as_str()
    }

    /// Posts a message.
    pub(crate) async fn call<Q, A>(&self, call: Call, request: &Q) -> Result<Answered<A>, NetworkError>
    where
        Q: Serialize + Sync,
        A: DeserializeOwned + Send,
    {
        let body = self.settings.media.encode(request);
        let max = self.settings.request_bytes_max;
        if body.len() > max {
            return Err(NetworkError::TooLarge { carrier: Carrier::Http, max, actual: body.len() });
        }
        let body = &body;
        self.retry_after.wait(call.path, call.within).await?;
        self.with_token(call.name, |held| async move {
            let remembered = self.remembered.answer(call.path, body);
            let mut request = self.request(Method::POST, self.url(call.path), &held.token)?;
            request = request.header(CONTENT_TYPE, self.settings.media.content_type()).body(body.clone());
            if let Some(answer) = &remembered {
                request = request.header(IF_NONE_MATCH, answer.tag.clone());
            }
            let exchange = async {
                let response = request.send().await.map_err(unavailable)?;
                self.retry_after.note(call.path, &response);
                if let (StatusCode::NOT_MODIFIED, Some(answer)) = (response.status(), &remembered) {
                    let header = response.headers().get(HeaderName::from_static(routes::SERVER_TIME_MS));
                    let server_time_ms = header.and_then(|time| time.to_str().ok()?.parse().ok());
                    return Ok(Answered { message: self.message(&answer.bytes)?, server_time_ms });
                }
                let tag = response.headers().get(ETAG).cloned();
                let bytes = self.bytes(response).await?;
                let message = self.message(&bytes)?;
                if let Some(tag) = tag {
                    self.remembered.keep(call.path, body, tag, &bytes);
                }
                Ok(Answered { message, server_time_ms: None })
            };
            in_time(call, exchange).await
        })
        .await
    }

    /// Gets a message.
    pub(crate) async fn get<A: DeserializeOwned + Send>(
        &self,
        call: Call,
        query: &[(&str, String)],
    ) -> Result<A, NetworkError> {
        self.retry_after.wait(call.path, call.within).await?;
        self.with_token(call.name, |held| async move {
            let mut url = self.url(call.path);
            url.query_pairs_mut().extend_pairs(query);
            let request = self.request(Method::GET, url, &held.token)?;
            let exchange = async {
                let response = request.send().await.map_err(unavailable)?;
                self.retry_after.note(call.path, &response);
                self.message(&self.bytes(response).await?)
            };
            in_time(call, exchange).await
        })
        .await
    }

    /// Opens a stream of events after the one of this id; with the token that it was opened with. `None` if what answers
    /// gives no such stream.
    pub(crate) async fn open(
        &self,
        call: Call,
        last_event_id: Option<&str>,
    ) -> Result<Option<(Response, NumberedToken)>, NetworkError> {
        self.retry_after.wait(call.path, call.within).await?;
        self.with_token(call.name, |held| async move {
            let mut request = self.request(Method::GET, self.url(call.path), &held.token)?;
            request = request.header(ACCEPT, HeaderValue::from_static(routes::EVENT_STREAM));
            if let Some(id) = last_event_id {
                request = request.header(routes::LAST_EVENT_ID, id);
            }
            let opening = async {
                let response = request.send().await.map_err(unavailable)?;
                self.retry_after.note(call.path, &response);
                let kind = response.headers().get(CONTENT_TYPE);
                let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(routes::EVENT_STREAM.as_bytes()));
                match response.status() {
                    StatusCode::OK if is_stream => Ok(Some((response, held))),
                    StatusCode::UNAUTHORIZED => {
                        Err(Fault::new(FaultCode::Unauthenticated, "the stream of events is refused").into())
                    }
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Err(not_ours(response.status())),
                    _ => Ok(None),
                }
            };
            in_time(call, opening).await
        })
        .await
    }

    /// Asks with the token that holds; with a new one once more if the server refuses it.
    async fn with_token<T, F>(
        &self,
        call: &'static str,
        ask: impl Fn(NumberedToken) -> F + Send,
    ) -> Result<T, NetworkError>
    where
        F: Future<Output = Result<T, NetworkError>> + Send,
    {
        let held = self.tokens.token().await?;
        let answer = ask(held.clone()).await;
        if !answer.as_ref().is_err_and(NetworkError::is_unauthenticated) {
            return answer;
        }
        let Some(fresh) = self.tokens.other_than(&held).await? else { return answer };
        tracing::debug!(call, "the token was refused, trying a new one");
        let answer = ask(fresh.clone()).await;
        if answer.as_ref().is_err_and(NetworkError::is_unauthenticated) {
            self.tokens.forget(&fresh);
        }
        answer
    }

    fn request(&self, method: Method, url: Url, token: &str) -> Result<RequestBuilder, NetworkError> {
        let mut bearer = HeaderValue::try_from(format!("{}{token}", routes::BEARER))
            .map_err(|_| NetworkError::Token("it holds characters that no header can".to_owned()))?;
        bearer.set_sensitive(true);
        let request = self.client.request(method, url).header(AUTHORIZATION, bearer);
        Ok(request.header(ACCEPT, self.settings.media.content_type()))
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// The body of an answer of the server's own.
    async fn bytes(&self, response: Response) -> Result<Vec<u8>, NetworkError> {
        let kind = response.headers().get(CONTENT_TYPE);
        if kind.is_none_or(|kind| kind.as_bytes() != self.settings.media.content_type().as_bytes()) {
            return Err(not_ours(response.status()));
        }
        read_bounded(response, self.settings.response_bytes_max).await
    }

    fn message<A: DeserializeOwned>(&self, bytes: &[u8]) -> Result<A, NetworkError> {
        let reply: Reply<A> = self.settings.media.decode(bytes, self.settings.response_bytes_max)?;
        Result::from(reply).map_err(NetworkError::Fault)
    }
}

async fn in_time<T>(call: Call, exchange: impl Future<Output = Result<T, NetworkError>>) -> Result<T, NetworkError> {
    let timeout = |_elapsed| NetworkError::Timeout {
        carrier: Carrier::Http,
        call: call.name,
        after_ms: u64::try_from(call.within.as_millis()).unwrap_or(u64::MAX),
    };
    tokio::time::timeout(call.within, exchange).await.map_err(timeout)?
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
pub(crate) fn unavailable(error: reqwest::Error) -> NetworkError {
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
