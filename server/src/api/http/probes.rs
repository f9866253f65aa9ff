//! For whoever watches the server.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse;

use super::Api;
use crate::metrics::METRICS;

/// The text format that Prometheus reads.
const PROMETHEUS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn readyz(State(api): State<Arc<Api>>) -> StatusCode {
    if api.service.ready().await { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) async fn metrics() -> impl IntoResponse {
    ([(CONTENT_TYPE, HeaderValue::from_static(PROMETHEUS_TEXT))], METRICS.render())
}
