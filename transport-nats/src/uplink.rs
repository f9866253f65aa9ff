//! Upload: a batch goes into the stream, its outcome comes back on the device's own subject.
//!
//! Place in the journey: after the engine made a batch. The stream's acknowledgement says that the batch is on its way
//! and nothing more; its absence or refusal says at once that this carrier will not do.

use std::future::ready;
use std::sync::Arc;

use async_nats::{Client, Message, Subject};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::select;
use serde::Deserialize;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire::{self, Outcome, OutcomeMessage, UploadBatch};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use crate::client::{NatsNetwork, publish_denied, unavailable};
use crate::rpc::is_no_responders;

/// A device has one batch in flight: few answers wait to be read at any time.
const ANSWERS_WAITING_MAX: usize = 16;

/// What is said of an upload.
#[derive(Debug, Clone)]
enum Answer {
    /// By the server, on the device's own subject.
    Outcome(Arc<OutcomeMessage>),
    /// By the stream, on the subject that the upload was published with.
    Stored(Message),
}

/// What is said of this device's uploads, as it arrives.
pub(crate) struct Answers {
    arrived: broadcast::Sender<Answer>,
    /// Beneath it, each batch has a subject of its own for the stream's answer.
    inbox: String,
    reader: AbortHandle,
}

impl Answers {
    /// Listens from now on; the subscriptions come back with every connection, before anything else is sent on it. One for
    /// each upload would be two messages more that it waits for.
    pub(crate) async fn listen(client: &Client, outcomes: Subject, bytes_max: usize) -> Self {
        let inbox = client.new_inbox();
        let subscribe = async |subject: Subject| {
            client.subscribe(subject).await.expect("BUG: the client was just made, and our subjects are valid")
        };
        let stored = subscribe(format!("{inbox}.*").into()).await.map(Answer::Stored);
        let outcomes = subscribe(outcomes).await.filter_map(move |message| {
            let outcome = wire::decode::<OutcomeMessage>(&message.payload, bytes_max);
            ready(outcome.inspect_err(|error| tracing::warn!(%error, "unreadable outcome")).ok())
        });
        let mut answers = select(outcomes.map(|outcome| Answer::Outcome(Arc::new(outcome))), stored);
        let arrived = broadcast::Sender::new(ANSWERS_WAITING_MAX);
        let teller = arrived.clone();
        let reader = tokio::spawn(async move {
            while let Some(answer) = answers.next().await {
                // Without a listener it is late: its batch was given up, and will be sent again.
                drop(teller.send(answer));
            }
        });
        Self { arrived, inbox, reader: reader.abort_handle() }
    }
}

impl Drop for Answers {
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
        let mut answers = self.answers.arrived.subscribe();
        let mut denials = self.link.denials();
        let stored = Subject::from(format!("{}.{}", self.answers.inbox, batch.batch_id));
        let published = client.publish_with_reply(subject.clone(), stored.clone(), body).await;
        published.map_err(|error| self.publish_error(&error, bytes))?;
        loop {
            tokio::select! {
                answer = answers.recv() => match answer {
                    Ok(Answer::Outcome(message)) if message.batch_id.is_none_or(|id| id == batch.batch_id) => {
                        return Ok(message.outcome.clone());
                    }
                    Ok(Answer::Stored(answer)) if answer.subject == stored => check_stored(&answer)?,
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Err(unavailable("the client has ended")),
                },
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
