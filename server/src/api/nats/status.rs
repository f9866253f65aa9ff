//! How NATS is, seen from outside of a running server.

use async_nats::jetstream::Context;
use serde::Serialize;
use synchrotron_nats::link::Link;

use super::partition::Partition;
use super::{CONNECT_WITHIN, NatsApiError, NatsApiSettings, StreamFault, account, connect, streams};

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
    /// Settings that ask for less than a stream has; it stays as it is.
    pub not_shrunk: Vec<String>,
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
        let mut status = Self { nats_server_version: None, streams: Vec::new(), error: None, not_shrunk: Vec::new() };
        if let Err(error) = status.fill(settings).await {
            status.error = Some(error.to_string());
        }
        status
    }

    async fn fill(&mut self, settings: &NatsApiSettings) -> Result<(), NatsApiError> {
        let link = reach(settings).await?;
        self.nats_server_version = Some(link.client().server_info().version);
        let jetstream = streams::jetstream(&link)?;
        let consumers: Vec<String> = settings.partitions.partitions().map(Partition::consumer).collect();
        self.streams.push(read_stream(&jetstream, streams::up_stream(settings), &consumers).await?);
        self.streams.push(read_stream(&jetstream, streams::log_stream(settings), &[]).await?);
        for fault in streams::faults(settings, &jetstream).await? {
            match fault {
                StreamFault::Shrinks { .. } => self.not_shrunk.push(fault.to_string()),
                other => return Err(other.into()),
            }
        }
        Ok(())
    }

    /// Whether it was reached and answered.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.error.is_none()
    }
}

/// Connects to NATS for one question.
pub(super) async fn reach(settings: &NatsApiSettings) -> Result<Link, NatsApiError> {
    let keys = settings.keys()?;
    let link = connect(settings, settings.login_with(&keys)).await;
    let reached = tokio::time::timeout(CONNECT_WITHIN, link.up()).await;
    reached.map_err(|_| NatsApiError::Away { servers: settings.servers.clone() })?;
    account::require_ours(&link, &settings.clients_account)?;
    Ok(link)
}

/// What is wrong with the streams, or larger than the settings; nothing is changed.
///
/// # Errors
/// [`NatsApiError`] if NATS cannot be asked.
pub(crate) async fn stream_faults(settings: &NatsApiSettings) -> Result<Vec<StreamFault>, NatsApiError> {
    let link = reach(settings).await?;
    streams::faults(settings, &streams::jetstream(&link)?).await
}

async fn read_stream(jetstream: &Context, name: String, consumers: &[String]) -> Result<StreamStatus, NatsApiError> {
    let Some(info) = streams::look(jetstream, &name).await? else {
        return Ok(StreamStatus { name, ..StreamStatus::default() });
    };
    let (messages, bytes) = (info.state.messages, info.state.bytes);
    let mut status = StreamStatus { name, exists: true, messages, bytes, ..StreamStatus::default() };
    let Ok(stream) = jetstream.get_stream_no_info(&status.name).await else { return Ok(status) };
    for consumer in consumers {
        // It may be missing for the moment in which a server makes it.
        let Ok(info) = stream.consumer_info(consumer).await else { continue };
        // Each is brought every upload: the slowest shows how many wait.
        status.waiting = Some(info.num_pending.max(status.waiting.unwrap_or(0)));
        status.unacknowledged = Some(info.num_ack_pending + status.unacknowledged.unwrap_or(0));
    }
    Ok(status)
}
