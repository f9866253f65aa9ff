//! Upload: a batch goes into the stream, its outcome comes back on the device's own subject.
//!
//! Place in the journey: after the engine made a batch. The stream's acknowledgement says that the batch is on its way
//! and nothing more; its absence or refusal says at once that this carrier will not do.

use std::sync::Arc;

use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{self, Outcome, OutcomeMessage, UploadBatch};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::client::{NatsNetwork, publish_denied, unavailable};
use crate::rpc::is_no_responders;

/// A device has one batch in flight: few outcomes wait to be read at any time.
const OUTCOMES_WAITING_MAX: usize = 16;

/// The outcomes of this device, as they arrive.
pub(crate) struct Outcomes {
    arrived: broadcast::Sender<Arc<OutcomeMessage>>,
    reader: AbortHandle,
}

impl Outcomes {
    /// Listens from now on; the subscription comes back with every connection, before anything else is sent on it.
    pub(crate) async fn listen(client: &Client, subject: Subject, bytes_max: usize) -> Self {
        let arrived = broadcast::Sender::new(OUTCOMES_WAITING_MAX);
        let subscribed = client.subscribe(subject).await;
        let mut messages = subscribed.expect("BUG: the client was just made, and our subjects are valid");
        let teller = arrived.clone();
        let reader = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                match wire::decode::<OutcomeMessage>(&message.payload, bytes_max) {
                    // Without a listener it is late: its batch was given up, and will be sent again.
                    Ok(outcome) => drop(teller.send(Arc::new(outcome))),
                    Err(error) => tracing::warn!(%error, "unreadable outcome"),
                }
            }
        });
        Self { arrived, reader: reader.abort_handle() }
    }
}

impl Drop for Outcomes {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl NatsNetwork {
    /// Offers a batch.
    pub(crate) async fn offer(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        let within = self.settings.upload_within;
        let _calling = self.renewal.call("upload", within).await?;
        let connects = self.require_connection()?;
        let body = Bytes::from(wire::encode(batch));
        self.bounded("upload", within, connects, self.send(batch, body)).await
    }

    /// Sends the batch and waits for its outcome.
    async fn send(&self, batch: &UploadBatch, body: Bytes) -> Result<Outcome, NetworkError> {
        let client = self.link.client();
        let first_row = batch.records.iter().flat_map(|record| &record.rows).next();
        let subject = self.subjects.up(first_row.map(|row| &row.audience_key), &self.user_id, self.client_id);
        let bytes = body.len();
        let mut outcomes = self.outcomes.arrived.subscribe();
        let mut denials = self.link.denials();
        let inbox = client.new_inbox();
        let mut stored = client.subscribe(inbox.clone()).await.map_err(|error| unavailable(error.to_string()))?;
        let published = client.publish_with_reply(subject.clone(), inbox, body).await;
        published.map_err(|error| self.publish_error(&error, bytes))?;
        loop {
            tokio::select! {
                arrived = outcomes.recv() => match arrived {
                    Ok(message) if message.batch_id.is_none_or(|id| id == batch.batch_id) => {
                        return Ok(message.outcome.clone());
                    }
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(unavailable("the client has ended")),
                },
                Some(answer) = stored.next() => check_stored(&answer)?,
                error = publish_denied(&mut denials, &subject) => return Err(error),
            }
        }
    }
}

/// What a stream says to a publisher; of interest is only its refusal.
#[derive(Deserialize)]
struct StreamAnswer {
    error: Option<StreamRefusal>,
}

#[derive(Deserialize)]
struct StreamRefusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

fn check_stored(answer: &Message) -> Result<(), NetworkError> {
    if is_no_responders(answer) {
        return Err(unavailable("no stream takes uploads"));
    }
    match serde_json::from_slice::<StreamAnswer>(&answer.payload) {
        Ok(StreamAnswer { error: Some(refusal) }) => {
            let StreamRefusal { err_code, description } = refusal;
            Err(unavailable(format!("the upload stream refuses: {description} ({err_code})")))
        }
        // Stored, or an answer that tells nothing: the outcome will.
        Ok(StreamAnswer { error: None }) | Err(_) => Ok(()),
    }
}
