//! Uploads: from the stream to the service, and the outcome to the device.
//!
//! Place in the journey: after the device sent, before `ingest`. The order is: decide (Postgres commits), publish the
//! outcome, acknowledge. A crash between any two of them means that the upload is delivered again, and the service
//! answers from what it has.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use futures::{FutureExt, StreamExt};
use synchrotron_core::model::BatchId;
use synchrotron_core::wire::{self, Fault, FaultCode, Outcome, OutcomeMessage, UploadBatch, WireError};
use synchrotron_nats::subjects::UpSubject;
use tokio::time::Instant;

use super::{Api, NatsApiError, account, streams};
use crate::api::fault::unreadable;

/// How long one question for uploads stays open.
const ASK_FOR: Duration = Duration::from_secs(5);
/// How often what is done is taken out of the stream.
const PURGE_EVERY: Duration = Duration::from_secs(30);
/// What a device is told to wait when its upload took too long.
const RETRY_AFTER_MS: u64 = 1_000;
/// The pause before an upload that ended in a panic is delivered again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Works on uploads until the connection is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    account::require_ours(&api.link, &api.settings.clients_account).await?;
    let jetstream = streams::jetstream(&api.link)?;
    let consumer = streams::ensure_uploads(api, &jetstream).await?;
    tracing::info!("takes uploads over NATS");
    tokio::select! {
        ended = pull(api, &jetstream, &consumer) => ended,
        () = api.link.lost(connects) => Err(NatsApiError::Lost),
    }
}

async fn pull(api: &Arc<Api>, jetstream: &Context, consumer: &Consumer<pull::Config>) -> Result<(), NatsApiError> {
    let mut purged = Instant::now();
    loop {
        let room = api.uploads_room.available_permits().max(1);
        let mut batch = consumer.batch().max_messages(room).expires(ASK_FOR).messages().await?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(NatsApiError::Read)?;
            let permit = Arc::clone(&api.uploads_room).acquire_owned().await;
            let permit = permit.expect("BUG: nobody closes this semaphore");
            let api = Arc::clone(api);
            tokio::spawn(async move {
                work_on(&api, message).await;
                drop(permit);
            });
        }
        if purged.elapsed() > PURGE_EVERY {
            purged = Instant::now();
            purge_done(jetstream, consumer).await;
        }
    }
}

/// One delivery of one upload, from its subject to its acknowledgement.
async fn work_on(api: &Api, message: Message) {
    let subject = match api.subjects.parse_up(&message.subject) {
        Ok(subject) => subject,
        Err(error) => {
            tracing::warn!(%error, "an upload from nowhere");
            return settle(&message, AckKind::Term).await;
        }
    };
    let deciding = AssertUnwindSafe(decide(api, &subject, &message)).catch_unwind();
    let Ok(outcome) = deciding.await else {
        tracing::error!(client_id = %subject.client_id, "work on an upload panicked");
        return settle(&message, AckKind::Nak(Some(AFTER_PANIC))).await;
    };
    let to = api.subjects.outcome(&subject.user, subject.client_id);
    if let Err(error) = api.link.client().publish(to, wire::encode(&outcome).into()).await {
        // Not acknowledged: it is delivered again, or the device asks again.
        tracing::warn!(client_id = %subject.client_id, %error, "an outcome could not be published");
        return;
    }
    settle(&message, AckKind::Ack).await;
}

/// What the device is told. Whatever is wrong with its message is an outcome, too.
async fn decide(api: &Api, subject: &UpSubject, message: &Message) -> OutcomeMessage {
    let body = wire::decode::<UploadBatch>(&message.payload, api.settings.upload_bytes_max);
    let batch_id = body.as_ref().ok().map(|batch| batch.batch_id);
    let outcome = match admitted(api, subject, message, body) {
        Err(fault) => {
            tracing::debug!(client_id = %subject.client_id, error = %fault, "an upload is refused");
            Outcome::Refused(fault)
        }
        Ok((principal, batch)) => {
            let uploading = api.service.upload(&principal, batch);
            let uploaded = tokio::time::timeout(api.settings.upload_within, uploading).await;
            uploaded.unwrap_or(Outcome::Retry { after_ms: RETRY_AFTER_MS })
        }
    };
    OutcomeMessage { batch_id, outcome }
}

/// Who uploads what, if the bytes say what.
fn admitted(
    api: &Api,
    subject: &UpSubject,
    message: &Message,
    body: Result<UploadBatch, WireError>,
) -> Result<(crate::auth::Principal, UploadBatch), Fault> {
    let batch = body.map_err(|error| unreadable(&error))?;
    if batch.client_id != subject.client_id {
        return Err(Fault::new(FaultCode::ForeignClient, "the batch's client_id is not the subject's"));
    }
    let deliveries = message.info().map_or(1, |info| info.delivered);
    if deliveries > i64::from(api.settings.deliveries_max) {
        tracing::error!(batch_id = %batch.batch_id, deliveries, "an upload is given up");
        return Err(poison(batch.batch_id, deliveries - 1));
    }
    Ok((Api::sender(&subject.user), batch))
}

fn poison(batch_id: BatchId, begun: i64) -> Fault {
    Fault::new(FaultCode::Malformed, format!("work on batch {batch_id} was begun {begun} times and never ended"))
}

/// Acknowledges and waits until NATS has it. A failure means that the upload is delivered again, with the same outcome.
async fn settle(message: &Message, kind: AckKind) {
    if let Err(error) = message.double_ack_with(kind).await {
        tracing::debug!(%error, "an acknowledgement is lost");
    }
}

/// Takes out of the stream what every process has acknowledged.
async fn purge_done(jetstream: &Context, consumer: &Consumer<pull::Config>) {
    let purging = async {
        let info = consumer.get_info().await?;
        let stream = jetstream.get_stream_no_info(&info.stream_name).await?;
        stream.purge().sequence(info.ack_floor.stream_sequence + 1).await?;
        Ok::<_, async_nats::Error>(())
    };
    if let Err(error) = purging.await {
        tracing::debug!(%error, "uploads that are done stay in the stream for now");
    }
}
