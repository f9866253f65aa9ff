//! How NATS is, seen from outside of a running server.

use std::time::Duration;

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{Context, ErrorCode};
use serde::Serialize;
use synchrotron_nats::subjects::Subjects;

use super::{NatsApiError, NatsApiSettings, account, connect, streams};

/// How long NATS may take to be reached.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// How NATS is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NatsStatus {
    /// The version of the nats-server that was reached, if one was.
    pub nats_server_version: Option<String>,
    /// The streams, in the order uploads, log.
    pub streams: Vec<StreamStatus>,
    /// What is wrong.
    pub error: Option<String>,
}

/// How one stream is.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StreamStatus {
    /// Its name.
    pub name: String,
    /// Whether it is there; a server that starts makes it.
    pub exists: bool,
    /// How many messages it keeps.
    pub messages: u64,
    /// How many bytes these are.
    pub bytes: u64,
    /// How many uploads nobody has taken up yet.
    pub waiting: Option<u64>,
    /// How many uploads are being worked on.
    pub unacknowledged: Option<usize>,
}

impl NatsStatus {
    /// Connects, asks and leaves.
    pub async fn read(settings: &NatsApiSettings) -> Self {
        let mut status = Self { nats_server_version: None, streams: Vec::new(), error: None };
        let login = match settings.keys() {
            Ok(keys) => settings.login.clone().unwrap_or_else(|| keys.server_login()),
            Err(error) => {
                status.error = Some(error.to_string());
                return status;
            }
        };
        let link = connect(settings, login).await;
        if tokio::time::timeout(CONNECT_WITHIN, link.up()).await.is_err() {
            status.error = Some(format!("{:?} cannot be reached, or refuses", settings.servers));
            return status;
        }
        status.nats_server_version = Some(link.client().server_info().version);
        let subjects = Subjects::new(settings.prefix.clone());
        let streams = async {
            account::require_ours(&link, &settings.clients_account).await?;
            let jetstream = streams::jetstream(&link)?;
            let up = read_stream(&jetstream, streams::up_stream(&subjects), Some(streams::CONSUMER)).await?;
            let log = read_stream(&jetstream, streams::log_stream(&subjects), None).await?;
            Ok::<_, NatsApiError>(vec![up, log])
        };
        match streams.await {
            Ok(streams) => status.streams = streams,
            Err(error) => status.error = Some(error.to_string()),
        }
        status
    }

    /// Whether it was reached and answered.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.error.is_none()
    }
}

async fn read_stream(
    jetstream: &Context,
    name: String,
    consumer: Option<&'static str>,
) -> Result<StreamStatus, NatsApiError> {
    let found = match jetstream.get_stream(&name).await {
        Ok(found) => found,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                return Ok(StreamStatus { name, ..StreamStatus::default() });
            }
            _ => return Err(NatsApiError::Look { stream: name, source: error }),
        },
    };
    let state = &found.cached_info().state;
    let (messages, bytes) = (state.messages, state.bytes);
    let info = match consumer {
        // It may be missing for the moment in which a server makes it.
        Some(consumer) => found.consumer_info(consumer).await.ok(),
        None => None,
    };
    let waiting = info.as_ref().map(|info| info.num_pending);
    let unacknowledged = info.map(|info| info.num_ack_pending);
    Ok(StreamStatus { name, exists: true, messages, bytes, waiting, unacknowledged })
}
