//! A collector that keeps what it is sent, and a listener that keeps every event of this process.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// Takes OTLP over HTTP.
#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    /// Listens on a free port; its base URL beside it.
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let taking = collector.clone();
        let take = async move |headers: HeaderMap, body: Bytes| taking.take(&headers, body);
        let app = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, url)
    }

    fn take(&self, headers: &HeaderMap, body: Bytes) -> StatusCode {
        if headers.get("content-type").is_none_or(|kind| kind != "application/x-protobuf") {
            return StatusCode::UNSUPPORTED_MEDIA_TYPE;
        }
        let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
        let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(spans);
        StatusCode::OK
    }

    /// The spans of this name that came by now.
    pub(crate) fn spans(&self, name: &str) -> Vec<Span> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// An event's fields, and the span that it is in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) span: Option<&'static str>,
    pub(crate) fields: BTreeMap<&'static str, String>,
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name(), format!("{value:?}"));
    }
}

/// Keeps every event of this process.
#[derive(Clone, Default)]
pub(crate) struct Listening(Arc<Mutex<Vec<Told>>>);

impl Listening {
    /// Every event that names this action, by now.
    pub(crate) fn of_action(&self, action_id: &str) -> Vec<Told> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter(|told| told.fields.get("action_id").is_some_and(|id| id == action_id)).cloned().collect()
    }
}

impl<S: Subscriber + for<'span> LookupSpan<'span>> Layer<S> for Listening {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut told = Told { span: context.event_span(event).map(|span| span.name()), ..Told::default() };
        event.record(&mut told);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}
