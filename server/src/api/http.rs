//! HTTP: five calls, two probes, and the metrics.
//!
//! Place in the journey: a device's request comes in as one envelope and goes out as one; between them is one call of
//! [`Service`]. Nothing is decided here but who asks.
//!
//! # Invariants
//! - The token is verified before the body is read, on every request.
//! - A body is read up to its bound and no further; what follows is thrown away, so that a sender who said too much
//!   still hears why, and its connection lives on.
//! - Whatever comes in, the calls answer with a [`Reply`] and the status that goes with it.
//!
//! Tests: `tests/http.rs`, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use synchrotron_core::wire::{
    self, DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Reply, Session,
    SessionRequest, SnapshotChunk, SnapshotRequest, UploadBatch,
};
use synchrotron_http::routes;
use tokio::sync::Semaphore;

use super::fault::unreadable;
use crate::auth::{Principal, TokenVerifier};
use crate::metrics::{AuthRefusal, METRICS};
use crate::service::Service;
use crate::settings::Settings;

/// How much a request may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct HttpLimits {
    /// The largest body that is read.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive.
    pub body_within: Duration,
    /// How many requests are served at once; more are told to come back.
    pub requests_max: usize,
}

impl HttpLimits {
    /// Limits that let through every upload that these settings allow.
    #[must_use]
    pub const fn for_settings(settings: &Settings) -> Self {
        Self { body_bytes_max: settings.max_upload_bytes, body_within: Duration::from_secs(30), requests_max: 256 }
    }
}

/// What a client that finds no room is told to wait.
const RETRY_AFTER_SECONDS: u16 = 1;
/// How much of a refused body is thrown away before the connection is given up instead, in bodies that would be taken.
const DRAINED_BODIES_MAX: usize = 8;

/// The text format that Prometheus reads.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug)]
struct Api {
    service: Service,
    verifier: Arc<TokenVerifier>,
    limits: HttpLimits,
    room: Semaphore,
}

/// The routes of [`synchrotron_http::routes`].
pub fn router(service: Service, verifier: Arc<TokenVerifier>, limits: HttpLimits) -> Router {
    let room = Semaphore::new(limits.requests_max);
    Router::new()
        .route(routes::SESSION, post(session))
        .route(routes::FETCH, post(fetch))
        .route(routes::UPLOAD, post(upload))
        .route(routes::SNAPSHOT, post(snapshot))
        .route(routes::DIGEST, post(digest))
        .route(routes::HEALTHZ, get(async || StatusCode::OK))
        .route(routes::READYZ, get(readyz))
        .route(routes::METRICS, get(metrics))
        .with_state(Arc::new(Api { service, verifier, limits, room }))
}

async fn session(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let served = api.serve(request, async |who, body: SessionRequest| api.service.session(&who, body).await);
    answer::<Session>(served.await)
}

async fn fetch(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let served = api.serve(request, async |who, body: FetchRequest| api.service.fetch(&who, body).await);
    answer::<FetchPage>(served.await)
}

async fn snapshot(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let served = api.serve(request, async |who, body: SnapshotRequest| api.service.snapshot(&who, body).await);
    answer::<SnapshotChunk>(served.await)
}

async fn digest(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let served = api.serve(request, async |who, body: DigestRequest| api.service.digest(&who, body).await);
    answer::<DigestReply>(served.await)
}

/// An upload that cannot be read has an outcome too: it is refused for good, and the device need not wonder.
async fn upload(State(api): State<Arc<Api>>, request: Request<Body>) -> Response {
    let served = api.serve(request, async |who, body: UploadBatch| Ok(api.service.upload(&who, body).await));
    let outcome = served.await.or_else(|fault| match fault.code {
        FaultCode::Unauthenticated => Err(fault),
        FaultCode::Unavailable => Ok(Outcome::Retry { after_ms: u64::from(RETRY_AFTER_SECONDS) * 1_000 }),
        FaultCode::ForeignClient
        | FaultCode::Malformed
        | FaultCode::UnsupportedVersion
        | FaultCode::TooLarge
        | FaultCode::EpochChanged
        | FaultCode::Compacted
        | FaultCode::SnapshotGone => Ok(Outcome::Refused(fault)),
    });
    match outcome {
        Ok(outcome) => message(outcome_status(&outcome), &Reply::Ok(outcome)),
        Err(fault) => answer::<Outcome>(Err(fault)),
    }
}

async fn readyz(State(api): State<Arc<Api>>) -> StatusCode {
    if api.service.ready().await { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS_TEXT))], METRICS.render())
}

impl Api {
    /// Who asks, what is asked, and then the call.
    async fn serve<Q, A>(
        &self,
        request: Request<Body>,
        call: impl AsyncFnOnce(Principal, Q) -> Result<A, Fault>,
    ) -> Result<A, Fault>
    where
        Q: DeserializeOwned,
    {
        let (head, body) = request.into_parts();
        let Ok(_room) = self.room.try_acquire() else {
            self.drain(body.into_data_stream()).await;
            return Err(Fault::new(FaultCode::Unavailable, "too many requests at once"));
        };
        let admitted = match bearer(&head.headers) {
            Ok(token) => self.verifier.verify(token).await,
            Err(fault) => {
                METRICS.auth_refused(AuthRefusal::NoToken);
                Err(fault)
            }
        };
        let principal = match admitted.and_then(|who| self.check_length(&head.headers).map(|()| who)) {
            Ok(principal) => principal,
            Err(fault) => {
                self.drain(body.into_data_stream()).await;
                return Err(fault);
            }
        };
        let bytes = self.read(body).await?;
        let request = wire::decode(&bytes, self.limits.body_bytes_max).map_err(|error| unreadable(&error))?;
        drop(bytes);
        call(principal, request).await
    }

    /// Refuses a body by the length that it declares, before any of it is kept.
    fn check_length(&self, headers: &HeaderMap) -> Result<(), Fault> {
        let declared = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        match declared {
            Some(length) if length > self.limits.body_bytes_max as u64 => Err(self.too_large()),
            Some(_) | None => Ok(()),
        }
    }

    /// The body, if it ends within its bounds.
    async fn read(&self, body: Body) -> Result<Vec<u8>, Fault> {
        let mut chunks = body.into_data_stream();
        let reading = async {
            let mut bytes = Vec::new();
            while let Some(chunk) = chunks.next().await {
                let chunk: Bytes = chunk.map_err(|_| Fault::new(FaultCode::Malformed, "the body stopped half way"))?;
                if bytes.len() + chunk.len() > self.limits.body_bytes_max {
                    return Err(self.too_large());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes)
        };
        let read = tokio::time::timeout(self.limits.body_within, reading).await;
        let read = read.unwrap_or_else(|_| {
            let within = self.limits.body_within;
            Err(Fault::new(FaultCode::Malformed, format!("the body did not arrive within {within:?}")))
        });
        if matches!(&read, Err(fault) if fault.code == FaultCode::TooLarge) {
            self.drain(chunks).await;
        }
        read
    }

    /// Throws a body away: a sender that is still sending would not hear the answer. Gives up on an endless one.
    async fn drain(&self, mut chunks: BodyDataStream) {
        let mut left = self.limits.body_bytes_max.saturating_mul(DRAINED_BODIES_MAX);
        let draining = async {
            while let Some(Ok(chunk)) = chunks.next().await {
                left = left.saturating_sub(chunk.len());
                if left == 0 {
                    break;
                }
            }
        };
        if tokio::time::timeout(self.limits.body_within, draining).await.is_err() {
            tracing::debug!("a refused body went on for too long");
        }
    }

    fn too_large(&self) -> Fault {
        let max = self.limits.body_bytes_max;
        Fault::new(FaultCode::TooLarge, format!("body of more than {max} bytes"))
    }
}

/// The token of the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Fault> {
    let refused = |fact| Fault::new(FaultCode::Unauthenticated, fact);
    let header = headers.get(AUTHORIZATION).ok_or_else(|| refused("no Authorization header"))?;
    let text = header.to_str().map_err(|_| refused("the Authorization header is not text"))?;
    match text.split_at_checked(routes::BEARER.len()) {
        // The scheme's name is case-insensitive (RFC 9110, section 11.1).
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(routes::BEARER) => Ok(token.trim()),
        Some(_) | None => Err(refused("the Authorization header holds no bearer token")),
    }
}

fn answer<A: Serialize>(served: Result<A, Fault>) -> Response {
    let status = match &served {
        Ok(_) => StatusCode::OK,
        Err(fault) => {
            tracing::debug!(code = ?fault.code, error = %fault, "not served");
            fault_status(fault.code)
        }
    };
    message(status, &Reply::from(served))
}

fn message<A: Serialize>(status: StatusCode, reply: &Reply<A>) -> Response {
    let kind = (CONTENT_TYPE, HeaderValue::from_static(routes::MESSAGEPACK));
    let mut response = (status, [kind], wire::encode_compressed(reply)).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(routes::BEARER.trim_ascii_end()));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    response
}

/// The one map from faults to statuses.
const fn fault_status(code: FaultCode) -> StatusCode {
    match code {
        FaultCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        FaultCode::ForeignClient => StatusCode::FORBIDDEN,
        FaultCode::Malformed | FaultCode::UnsupportedVersion => StatusCode::BAD_REQUEST,
        FaultCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultCode::EpochChanged => StatusCode::CONFLICT,
        FaultCode::Compacted | FaultCode::SnapshotGone => StatusCode::GONE,
        FaultCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The one map from outcomes to statuses.
const fn outcome_status(outcome: &Outcome) -> StatusCode {
    match outcome {
        Outcome::Accepted { .. } => StatusCode::OK,
        Outcome::BehindHead { .. }
        | Outcome::EpochChanged { .. }
        | Outcome::ClockAhead { .. }
        | Outcome::TooOld { .. } => StatusCode::CONFLICT,
        Outcome::Rejected { .. } => StatusCode::UNPROCESSABLE_ENTITY,
        Outcome::Unauthenticated { .. } => StatusCode::UNAUTHORIZED,
        Outcome::Retry { .. } => StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Refused(fault) => fault_status(fault.code),
    }
}
