//! `GET /v1/poll`: what an event would say, as one answer that waits until there is one.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use synchrotron_core::model::WakeupId;
use synchrotron_core::wire::{Fault, FaultCode, Wakeup};
use synchrotron_http::media::Media;
use synchrotron_http::routes;
use tokio::time::timeout;
use url::form_urlencoded;

use super::Api;
use super::answer::{Refusal, answer};
use super::listening::Listening;
use super::negotiation::{answer_form, form_for_people};

pub(super) async fn poll(State(api): State<Arc<Api>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let media = form_for_people(&headers);
    answer(media, wait(&api, query.as_deref().unwrap_or_default(), &headers).await)
}

async fn wait(api: &Api, query: &str, headers: &HeaderMap) -> Result<Wakeup, Refusal> {
    let admitted = api.admit_listener(headers).await?;
    answer_form(headers, Media::Json)?;
    let asked = Asked::read(query)?;
    let (mut listening, missed) = Listening::begin(api, admitted, asked.seen).await?;
    if let Some(missed) = missed {
        return Ok(missed);
    }
    let within = asked.wait.unwrap_or(Duration::MAX).min(api.settings().wait_max);
    match timeout(within, listening.next()).await {
        Ok(Ok(news)) => Ok(news),
        // Whoever asks again is told by somebody else, or that its token is over.
        Ok(Err(_)) | Err(_) => Ok(listening.seen()),
    }
}

/// Whether these are parameters of a poll.
///
/// # Errors
/// The fault that the sender is told.
pub fn read_poll(query: &str) -> Result<(), Fault> {
    Asked::read(query).map(drop)
}

/// What a poll asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    seen: Option<WakeupId>,
    wait: Option<Duration>,
}

impl Asked {
    /// Parameters that are not ours are somebody else's business.
    fn read(query: &str) -> Result<Self, Fault> {
        let malformed = |fact: &str| Fault::new(FaultCode::Malformed, fact);
        let mut asked = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                routes::POLL_SEEN => {
                    let seen = value.parse().map_err(|_| malformed("the parameter seen is no id of a wakeup"))?;
                    asked.seen = Some(WakeupId::from_uuid(seen));
                }
                routes::POLL_WAIT => {
                    let wait = value.parse().map_err(|_| malformed("the parameter wait is no number of seconds"))?;
                    asked.wait = Some(Duration::from_secs(wait));
                }
                _ => {}
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameters_are_read_or_refused_by_name() {
        let id = "00000000-0000-0000-0000-000000000007";
        let asked = Asked::read(&format!("wait=3&utm=x&seen={id}")).expect("good");
        assert_eq!(asked.wait, Some(Duration::from_secs(3)));
        assert_eq!(asked.seen.map(|seen| seen.to_string()).as_deref(), Some(id));
        assert_eq!(Asked::read("").expect("nothing"), Asked::default());
        for (query, part) in [("seen=1", "seen"), ("wait=-1", "wait"), ("wait=99999999999999999999", "wait")] {
            let fault = Asked::read(query).expect_err(query);
            assert!(fault.code == FaultCode::Malformed && fault.message.contains(part), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(query in any::<String>()) {
            let _verdict = Asked::read(&query);
        }
    }
}
