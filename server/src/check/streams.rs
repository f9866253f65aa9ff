//! The streams in NATS: whether those that are there will do.

use super::{Finding, Level};
use crate::api::nats::{self, NatsApiError, NatsApiSettings, StreamFault};

/// Looks at the streams; one that is not there is no finding where a server makes it.
pub(super) async fn look(settings: &NatsApiSettings) -> Vec<Finding> {
    match nats::stream_faults(settings).await {
        Ok(faults) => faults.into_iter().map(Finding::from).collect(),
        Err(error) => vec![unasked(&error)],
    }
}

impl From<StreamFault> for Finding {
    fn from(fault: StreamFault) -> Self {
        let level = match fault {
            StreamFault::Shrinks { .. } => Level::Warning,
            StreamFault::Lacks { .. } | StreamFault::Missing { .. } => Level::Error,
        };
        let place = format!("stream {}", fault.stream());
        Self { level, kind: fault.kind(), place, what: fault.to_string(), remedy: Some(fault.remedy()) }
    }
}

/// A server starts also while NATS is away; one that is too old will not do.
fn unasked(error: &NatsApiError) -> Finding {
    let (level, kind) = match error {
        NatsApiError::ServerTooOld { .. } => (Level::Error, "nats_too_old"),
        _ => (Level::Warning, "nats_away"),
    };
    Finding { level, kind, place: "nats".to_owned(), what: error.to_string(), remedy: None }
}
