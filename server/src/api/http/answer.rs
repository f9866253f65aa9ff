//! What goes out: a reply in the asker's form, with the status and the headers that go with it.

use std::time::Duration;

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, VARY, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use synchrotron_core::wire::{Fault, FaultCode, Outcome, Reply};
use synchrotron_http::media::Media;
use synchrotron_http::routes;

/// What a client is told to wait that finds no room, if nothing better is known.
pub(super) const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// Why a request is not served, and how that is said.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) fault: Fault,
    pub(super) status: StatusCode,
    /// When to come back, if that helps.
    pub(super) retry_after: Option<Duration>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let status = fault_status(fault.code);
        let retry_after = (fault.code == FaultCode::Unavailable).then_some(RETRY_AFTER_DEFAULT);
        Self { fault, status, retry_after }
    }
}

impl Refusal {
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The user has its share: others are served.
    pub(super) fn too_many(fact: &str, retry_after: Duration) -> Self {
        let fault = Fault::new(FaultCode::Unavailable, fact);
        Self { fault, status: StatusCode::TOO_MANY_REQUESTS, retry_after: Some(retry_after) }
    }
}

/// A call's answer.
pub(super) fn answer<A: Serialize>(media: Media, served: Result<A, Refusal>) -> Response {
    match served {
        Ok(answer) => message(media, StatusCode::OK, None, &Reply::Ok(answer)),
        Err(Refusal { fault, status, retry_after }) => {
            tracing::debug!(code = ?fault.code, error = %fault, "not served");
            message(media, status, retry_after, &Reply::<A>::Fault(fault))
        }
    }
}

/// An upload's answer. One that cannot be read has an outcome too: it is refused for good, and the device need not wonder.
pub(super) fn upload_answer(media: Media, served: Result<Outcome, Refusal>) -> Response {
    let (outcome, status, retry_after) = match served {
        Ok(outcome) => {
            let after = match &outcome {
                Outcome::Retry { after_ms } => Some(Duration::from_millis(*after_ms)),
                _ => None,
            };
            let status = outcome_status(&outcome);
            (outcome, status, after)
        }
        Err(refusal) => match refusal.fault.code {
            FaultCode::Unauthenticated => return answer::<Outcome>(media, Err(refusal)),
            FaultCode::Unavailable => {
                let after = refusal.retry_after.unwrap_or(RETRY_AFTER_DEFAULT);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                (Outcome::Retry { after_ms }, refusal.status, Some(after))
            }
            FaultCode::ForeignClient
            | FaultCode::Malformed
            | FaultCode::UnsupportedVersion
            | FaultCode::TooLarge
            | FaultCode::EpochChanged
            | FaultCode::Compacted
            | FaultCode::SnapshotGone => (Outcome::Refused(refusal.fault), refusal.status, None),
        },
    };
    message(media, status, retry_after, &Reply::Ok(outcome))
}

fn message<A: Serialize>(media: Media, status: StatusCode, after: Option<Duration>, reply: &Reply<A>) -> Response {
    let kind = (CONTENT_TYPE, HeaderValue::from_static(media.content_type()));
    let mut response = (status, [kind], media.encode(reply)).into_response();
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    if status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(routes::BEARER.trim_ascii_end()));
    }
    if let Some(after) = after {
        headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(after)));
    }
    response
}

/// Never sooner than asked for, and never at once.
fn whole_seconds(after: Duration) -> u64 {
    after.as_millis().div_ceil(1_000).max(1).try_into().unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_to_come_back_too_soon() {
        let seconds = [0, 1, 1_000, 1_001].map(|millis| whole_seconds(Duration::from_millis(millis)));
        assert_eq!(seconds, [1, 1, 1, 2]);
    }
}
