//! Which browsers may call: those of the origins that the operator names, and none by default.
//!
//! Tokens travel in a header that pages set themselves, so no cookie is ever asked for. A preflight needs no token.

use std::time::Duration;

use axum::http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderName, HeaderValue, Method};
use synchrotron_http::routes;
use tower_http::cors::{AllowOrigin, CorsLayer};

/// How long a browser may remember what a preflight said.
const PREFLIGHT_HOLDS_FOR: Duration = Duration::from_secs(60 * 60);

/// What lets these origins in.
pub(super) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()))
    };
    let last_event_id = HeaderName::from_static(routes::LAST_EVENT_ID);
    let asked = [ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, IF_NONE_MATCH, last_event_id];
    let told = [ETAG, RETRY_AFTER, WWW_AUTHENTICATE, HeaderName::from_static(routes::SERVER_TIME_MS)];
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(asked)
        .expose_headers(told)
        .max_age(PREFLIGHT_HOLDS_FOR);
    Some(layer)
}
