//! In which form a request comes, and in which one it is answered.

use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_http::media::{self, Media};

use super::answer::Refusal;

/// The form in which a call is answered. Who does not say gets what it sent, and who says nothing at all speaks MessagePack.
pub(super) fn call_form(headers: &HeaderMap) -> Result<Media, Refusal> {
    let body = body_form(headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes));
    answer_form(headers, body.unwrap_or(Media::Json))
}

/// The form that a `Content-Type` says a body has.
pub(super) fn body_form(content_type: Option<&[u8]>) -> Result<Media, Refusal> {
    let Some(content_type) = content_type else { return Ok(Media::default()) };
    let named = std::str::from_utf8(content_type).ok().and_then(Media::of_content_type);
    named.ok_or_else(|| {
        let fact = format!("a body is {} or {}", Media::MessagePack.content_type(), Media::Json.content_type());
        Refusal::from(Fault::new(FaultCode::Malformed, fact)).with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    })
}

/// The form that an answer is wanted in.
pub(super) fn answer_form(headers: &HeaderMap, otherwise: Media) -> Result<Media, Refusal> {
    let accepted = accept(headers)?;
    Media::accepted(accepted, otherwise).ok_or_else(|| {
        let fact = format!("an answer is {} or {}", Media::MessagePack.content_type(), Media::Json.content_type());
        not_acceptable(fact)
    })
}

/// Refuses who does not take a stream of events.
pub(super) fn check_events(headers: &HeaderMap) -> Result<(), Refusal> {
    if media::accepts_events(accept(headers)?) {
        Ok(())
    } else {
        Err(not_acceptable("the answer is a text/event-stream".to_owned()))
    }
}

/// The form of an answer without a call, which people make; JSON also if what is asked for is not to be had.
pub(super) fn form_for_people(headers: &HeaderMap) -> Media {
    answer_form(headers, Media::Json).unwrap_or(Media::Json)
}

fn accept(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let header = headers.get(ACCEPT).map(HeaderValue::to_str).transpose();
    header.map_err(|_| not_acceptable("the Accept header is not text".to_owned()))
}

fn not_acceptable(fact: String) -> Refusal {
    Refusal::from(Fault::new(FaultCode::Malformed, fact)).with_status(StatusCode::NOT_ACCEPTABLE)
}
