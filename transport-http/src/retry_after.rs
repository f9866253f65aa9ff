//! When the server said to come back: a call of the same kind waits until then.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use synchrotron_core::network::{Carrier, NetworkError};
use tokio::time::{Instant, sleep_until};

/// Until when each path is left alone.
#[derive(Debug)]
pub(crate) struct RetryAfter {
    until: Mutex<BTreeMap<&'static str, Instant>>,
    max: Duration,
}

impl RetryAfter {
    /// No path is; and none is for longer than `max` from when it was told.
    pub(crate) fn new(max: Duration) -> Self {
        Self { until: Mutex::default(), max }
    }

    /// Waits until the path may be asked.
    ///
    /// # Errors
    /// [`NetworkError::Unavailable`] at once, if that is not `within` the time that the caller has.
    pub(crate) async fn wait(&self, path: &'static str, within: Duration) -> Result<(), NetworkError> {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner).get(path).copied();
        let Some(until) = until else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left > within {
            let detail = format!("the server wants to be left alone for another {} s", left.as_secs());
            return Err(NetworkError::Unavailable { carrier: Carrier::Http, detail });
        }
        sleep_until(until).await;
        Ok(())
    }

    /// Remembers what an answer says.
    pub(crate) fn note(&self, path: &'static str, response: &Response) {
        let overloaded = matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let told = response.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.trim().parse().ok());
        let mut until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match told.filter(|_| overloaded) {
            Some(seconds) => until.insert(path, Instant::now() + Duration::from_secs(seconds).min(self.max)),
            None => until.remove(path),
        };
    }
}
