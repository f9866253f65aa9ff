//! `GET /v1/events`: a stream that says where there is something to fetch.
//!
//! It begins with how long to wait before coming back, and with what was missed; says by a comment that it lives when it has
//! nothing else to say; and ends with the reason. Nothing is gathered for a reader who is slow: it finds the newest heads
//! when it reads on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt, stream};
use rand::Rng;
use serde::Serialize;
use synchrotron_core::model::WakeupId;
use synchrotron_core::wire::{EndReason, StreamEnd, Wakeup};
use synchrotron_http::routes;

use super::Api;
use super::answer::{Refusal, answer};
use super::listening::Listening;
use super::negotiation::{check_events, form_for_people};

/// How long devices are told to wait before they come back: not all at once.
const COME_BACK_AFTER_MS: std::ops::Range<u64> = 500..3_000;

pub(super) async fn events(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    match listen(&api, &headers).await {
        Ok((listening, missed)) => {
            let alive = KeepAlive::new().interval(api.settings().heartbeat).text("alive");
            let mut response = Sse::new(stream_of(listening, missed)).keep_alive(alive).into_response();
            // What nginx is told to pass on as it comes.
            response.headers_mut().insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
            response
        }
        Err(refusal) => answer::<()>(form_for_people(&headers), Err(refusal)),
    }
}

async fn listen(api: &Api, headers: &HeaderMap) -> Result<(Listening, Option<Wakeup>), Refusal> {
    let admitted = api.admit_listener(headers).await?;
    check_events(headers)?;
    // An id that is none of ours means that nobody knows what this device was told.
    let seen = headers.get(routes::LAST_EVENT_ID).and_then(|id| id.to_str().ok()?.parse().ok());
    Ok(Listening::begin(api, admitted, seen.map(WakeupId::from_uuid)).await?)
}

fn stream_of(listening: Listening, missed: Option<Wakeup>) -> impl Stream<Item = Result<Event, Infallible>> {
    let retry = Duration::from_millis(rand::rng().random_range(COME_BACK_AFTER_MS));
    let hello = Event::default().retry(retry).comment("listening");
    let begin = stream::iter([Some(hello), missed.as_ref().map(wakeup)]).filter_map(async |event| event);
    let live = stream::unfold(Some(listening), async |listening| {
        let mut listening = listening?;
        Some(match listening.next().await {
            Ok(news) => (wakeup(&news), Some(listening)),
            Err(reason) => (end(reason), None),
        })
    });
    begin.chain(live).map(Ok)
}

fn wakeup(wakeup: &Wakeup) -> Event {
    event(routes::EVENT_WAKEUP, wakeup).id(wakeup.seen.to_string())
}

fn end(reason: EndReason) -> Event {
    event(routes::EVENT_END, &StreamEnd { reason })
}

fn event<T: Serialize>(name: &str, data: &T) -> Event {
    Event::default().event(name).json_data(data).expect("BUG: every wire type has a JSON form")
}
