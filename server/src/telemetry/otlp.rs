//! Spans as OTLP over HTTP, protobuf inside.
//!
//! Place in the journey: after it. Spans wait in a bounded queue and are sent in batches; what a collector does not take is
//! dropped, and nothing waits for it.

use std::time::Duration;

use async_trait::async_trait;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Tracer};
use synchrotron_core::model::TraceParent;
use synchrotron_core::wire::UploadBatch;
use tokio::runtime::Handle;
use tracing::Span;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;
use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};

use super::TelemetryError;
use crate::crypto;

/// How long one batch of spans may take to be sent.
const SENT_WITHIN: Duration = Duration::from_secs(5);
/// An upload of more traces names the first ones.
const TRACES_MAX: usize = 32;

/// Sends spans to a collector until it is dropped; then what is left is sent, within a few seconds.
#[derive(Debug)]
pub struct Otlp(SdkTracerProvider);

impl Otlp {
    /// Sends to the collector at this base URL (`http://localhost:4318`; `/v1/traces` is added). To be called within a tokio
    /// runtime of several threads.
    ///
    /// # Errors
    /// [`TelemetryError`] if that is no such URL, or the exporter cannot be made.
    pub fn to(endpoint: &str) -> Result<Self, TelemetryError> {
        let base = reqwest::Url::parse(endpoint).map_err(|_| TelemetryError::Endpoint)?;
        match base.scheme() {
            "http" | "https" => crypto::install(),
            _ => return Err(TelemetryError::Endpoint),
        }
        let client =
            Client { http: reqwest::Client::builder().timeout(SENT_WITHIN).build()?, runtime: Handle::current() };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", base.as_str().trim_end_matches('/')))
            .build()?;
        let resource = Resource::builder()
            .with_service_name("synchrotron-server")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    /// For a program with a subscriber of its own: what turns spans of `tracing` into those that are sent.
    #[must_use]
    pub fn layer<S>(&self) -> OpenTelemetryLayer<S, Tracer>
    where
        S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
    {
        tracing_opentelemetry::layer().with_tracer(self.0.tracer("synchrotron"))
    }
}

impl Drop for Otlp {
    /// Sends what is left.
    fn drop(&mut self) {
        if let Err(error) = self.0.shutdown_with_timeout(SENT_WITHIN) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The exporter has a thread of its own, and reqwest needs a runtime: requests run in ours.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: Handle,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sending = async move {
            let response = http.execute(request).await?;
            let status = response.status();
            Ok::<_, reqwest::Error>((status, response.bytes().await?))
        };
        // Sending spans must not make spans.
        let (status, body) = self.runtime.spawn(sending.with_subscriber(NoSubscriber::default())).await??;
        Ok(Response::builder().status(status).body(body)?)
    }
}

pub(super) fn follow(span: &Span, batch: &UploadBatch) {
    let mut traces: Vec<TraceParent> = Vec::new();
    for trace in batch.records.iter().filter_map(|record| record.trace_parent) {
        if traces.len() < TRACES_MAX && traces.iter().all(|known| known.trace_id() != trace.trace_id()) {
            traces.push(trace);
        }
    }
    let mut traces = traces.into_iter().map(remote);
    if let Some(first) = traces.next() {
        // Without a collector there is nothing to continue.
        let _continued = span.set_parent(Context::new().with_remote_span_context(first));
    }
    for other in traces {
        span.add_link(other);
    }
}

/// A span of another process.
fn remote(trace: TraceParent) -> SpanContext {
    let flags = if trace.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let (trace_id, span_id) = (TraceId::from_bytes(trace.trace_id()), SpanId::from_bytes(trace.parent_id()));
    SpanContext::new(trace_id, span_id, flags, true, TraceState::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_urls_that_can_be_sent_to_are_taken() {
        for (endpoint, is_taken) in [
            ("http://127.0.0.1:4318", true),
            ("https://collector:4318", true),
            ("grpc://127.0.0.1:4317", false),
            ("collector:4318", false),
            ("", false),
        ] {
            assert_eq!(Otlp::to(endpoint).is_ok(), is_taken, "{endpoint}");
        }
    }
}
