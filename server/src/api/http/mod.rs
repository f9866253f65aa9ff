//! HTTP: five calls, two ways to listen, probes, metrics, and the document that says what all of it is.
//!
//! Place in the journey: a device's request comes in as one message and goes out as one; between them is one call of
//! [`Service`]. Nothing is decided here but who asks, in which form, and whether there is room. A request passes
//! `negotiation`, `admission`, `body`, then one of `calls`, and leaves by `answer`; `events` and `poll` listen.
//!
//! # Invariants
//! - The token is verified before the body is read, on every request.
//! - A body is read up to its bound and no further, compressed or not; what follows is thrown away, so that a sender who
//!   said too much still hears why, and its connection lives on.
//! - Whatever comes in, the calls answer with a [`Reply`](synchrotron_core::wire::Reply) and the status that goes with it.
//! - Every route is in the `table`, of which the router is made, and the document that says what they are.
//!
//! Tests: `tests/http`, over real sockets.

mod admission;
mod answer;
mod body;
mod calls;
mod connections;
mod cors;
mod etag;
mod events;
mod listening;
mod negotiation;
mod openapi;
mod poll;
mod probes;
mod sent;
mod table;

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_http::routes;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use self::admission::Admission;
use self::answer::{Refusal, answer};
pub use self::body::read_request;
pub use self::connections::serve;
pub use self::poll::read_poll;
use crate::auth::TokenVerifier;
use crate::service::Service;
use crate::settings::HttpSettings;
use crate::wakeups::Listeners;

/// Answers smaller than this are not compressed: that would save less than it costs.
const COMPRESSED_BYTES_MIN: u16 = 1_024;

/// What all requests share.
#[derive(Debug)]
struct Api {
    service: Service,
    verifier: Arc<TokenVerifier>,
    admission: Admission,
    listeners: Listeners,
    /// Those that listen are sent elsewhere.
    stop: CancellationToken,
    openapi: OnceLock<Bytes>,
}

impl Api {
    fn settings(&self) -> &HttpSettings {
        &self.service.settings().http
    }

    fn body_bytes_max(&self) -> usize {
        self.service.settings().max_upload_bytes
    }
}

/// The routes of [`synchrotron_http::routes`], until `stop` sends those that listen away. It must be made within a tokio
/// runtime.
pub fn router(service: Service, verifier: Arc<TokenVerifier>, stop: CancellationToken) -> Router {
    let settings = service.settings().http.clone();
    let listeners = Listeners::start(service.clone());
    let admission = Admission::new(&settings);
    let api = Arc::new(Api { service, verifier, admission, listeners, stop, openapi: OnceLock::new() });
    let routed = table::ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    let router = routed
        .fallback(async |headers: HeaderMap| unrouted(&headers, StatusCode::NOT_FOUND, "no such path"))
        .method_not_allowed_fallback(async |headers: HeaderMap| {
            unrouted(&headers, StatusCode::METHOD_NOT_ALLOWED, "this path is asked with another method")
        })
        .with_state(api)
        .layer(compression());
    match cors::layer(&settings.cors_origins) {
        Some(cors) => router.layer(cors),
        None => router,
    }
}

/// Compresses what its form does not compress by itself, and no stream: what is gathered for a block would be late.
fn compression() -> CompressionLayer<impl Predicate> {
    let worth_it = SizeAbove::new(COMPRESSED_BYTES_MIN)
        .and(NotForContentType::new(routes::MESSAGEPACK))
        .and(NotForContentType::SSE);
    CompressionLayer::new().compress_when(worth_it)
}

fn unrouted(headers: &HeaderMap, status: StatusCode, fact: &str) -> Response {
    let media = negotiation::form_for_people(headers);
    answer::<()>(media, Err(Refusal::from(Fault::new(FaultCode::Malformed, fact)).with_status(status)))
}
