//! Answers that need not be sent again: a device that has one names it, and hears that it is still so.
//!
//! The calls are `POST`, because what they ask is in their bodies; those that only read honour `If-None-Match` all the same.
//! A tag is of an answer's content, not of its bytes, so it is weak (RFC 9110, section 8.8.1) and the same in both forms. The
//! server's clock is no content: it comes in a header.

use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use synchrotron_core::wire::{self, DigestReply, FetchPage, Session};
use synchrotron_http::media::Media;
use synchrotron_http::routes;

use super::answer::{self, Refusal};

/// An answer, its tag if it has one, and the server's clock if it tells that.
pub(super) struct Tagged<A> {
    answer: A,
    tag: Option<HeaderValue>,
    server_time_ms: Option<i64>,
}

impl Tagged<Session> {
    pub(super) fn session(session: Session) -> Self {
        let tag = tag_of(&Session { server_time_ms: 0, ..session.clone() });
        Self { server_time_ms: Some(session.server_time_ms), answer: session, tag: Some(tag) }
    }
}

impl Tagged<FetchPage> {
    /// A page with records is read once; only that there are none is asked again.
    pub(super) fn page(page: FetchPage) -> Self {
        let tag = page.records.is_empty().then(|| tag_of(&page));
        Self { answer: page, tag, server_time_ms: None }
    }
}

impl Tagged<DigestReply> {
    pub(super) fn digest(digest: DigestReply) -> Self {
        let tag = Some(tag_of(&digest));
        Self { answer: digest, tag, server_time_ms: None }
    }
}

/// The answer, or that the asker has it.
pub(super) fn answer<A: Serialize>(media: Media, asked: &HeaderMap, served: Result<Tagged<A>, Refusal>) -> Response {
    let tagged = match served {
        Ok(tagged) => tagged,
        Err(refusal) => return answer::answer::<A>(media, Err(refusal)),
    };
    let Some(tag) = tagged.tag else { return answer::answer(media, Ok(tagged.answer)) };
    let mut response = if names(asked, &tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        answer::answer(media, Ok(tagged.answer))
    };
    response.headers_mut().insert(ETAG, tag);
    if let Some(server_time_ms) = tagged.server_time_ms {
        response
            .headers_mut()
            .insert(HeaderName::from_static(routes::SERVER_TIME_MS), HeaderValue::from(server_time_ms));
    }
    response
}

/// Whether `If-None-Match` names the tag.
pub(super) fn names(asked: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let Ok(tag) = tag.to_str().map(opaque) else { return false };
    let named = asked.get_all(IF_NONE_MATCH).iter().filter_map(|header| header.to_str().ok());
    named.flat_map(|header| header.split(',')).any(|named| opaque(named) == tag)
}

/// A tag of what a message says.
pub(super) fn tag_of<T: Serialize>(message: &T) -> HeaderValue {
    let hash = Sha256::digest(wire::encode(message));
    let text = URL_SAFE_NO_PAD.encode(&hash[..12]);
    HeaderValue::try_from(format!("W/\"{text}\"")).expect("BUG: base64 is a header's")
}
