//! Uploads: from the stream to the service, and the outcome to the device.
//!
//! Place in the journey: after the device sent, before `ingest`. The order is: decide (Postgres commits), publish the
//! outcome, acknowledge. A crash between any two of them means that the upload is delivered again, and the service
//! answers from what it has.
//!
//! # Invariants
//! - A reader decides the uploads of its partition, and lets those of others go by.
//! - What is delivered to it is decided: one that is asked to stop ends the question that is open first, so that nothing
//!   waits to be delivered again.
//! - An upload stays in the stream until it is decided, and takes up no room there for long afterwards: a large one leaves
//!   it at once, and the others do when every consumer has seen them. So nobody can fill the stream with what nobody wants.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::{AckKind, Context, Message};
use futures::{FutureExt, StreamExt};
use serde_json::json;
use synchrotron_core::model::BatchId;
use synchrotron_core::wire::{self, Fault, FaultCode, Outcome, OutcomeMessage, UploadBatch, WireError};
use synchrotron_nats::subjects::UpSubject;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::partition::{self, Partition};
use super::{Api, NatsApiError, account, streams};
use crate::api::fault::unreadable;

/// How long one question for uploads stays open; a reader that is asked to stop waits as long.
const ASK_FOR: Duration = Duration::from_secs(1);
/// How often what is done is taken out of the stream.
const PURGE_EVERY: Duration = Duration::from_secs(30);
/// And each time that so much of the stream's room was read.
const PURGED_PART: u64 = 16;
/// What is larger leaves the stream by itself, whatever else of it is not done yet. To ask for it costs about as much as this
/// many bytes.
const LARGE_BYTES: usize = 16 << 10;
/// What a device is told to wait when its upload took too long.
const RETRY_AFTER_MS: u64 = 1_000;
/// The pause before an upload that ended in a panic is delivered again.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Works on the uploads of a partition until asked to stop, or until the connection is lost.
pub(super) async fn serve(
    api: &Arc<Api>,
    partition: Partition,
    connects: u64,
    stop: &CancellationToken,
) -> Result<(), NatsApiError> {
    account::require_ours(&api.link, &api.settings.clients_account)?;
    let jetstream = streams::jetstream(&api.link)?;
    streams::ensure_up(&api.settings, &jetstream).await?;
    let consumer = streams::ensure_consumer(&api.settings, &jetstream, partition).await?;
    tracing::info!(part = partition.part, of = partition.count.get(), "takes uploads over NATS");
    let work = TaskTracker::new();
    let ended = tokio::select! {
        ended = pull(api, partition, &jetstream, &consumer, &work, stop) => ended,
        () = api.link.lost(connects) => Err(NatsApiError::Lost),
    };
    if ended.is_ok() {
        work.close();
        work.wait().await;
    }
    ended
}

async fn pull(
    api: &Arc<Api>,
    partition: Partition,
    jetstream: &Context,
    consumer: &Consumer<pull::Config>,
    work: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), NatsApiError> {
    let room_bytes = u64::try_from(api.settings.stream_bytes_max).unwrap_or(u64::MAX);
    let (mut purged, mut read_bytes) = (Instant::now(), 0);
    while !stop.is_cancelled() {
        let room = api.uploads_room.available_permits().max(1);
        let mut batch = consumer.batch().max_messages(room).expires(ASK_FOR).messages().await?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(NatsApiError::Read)?;
            read_bytes += message.length as u64;
            let Some(subject) = for_us(api, partition, &message).await else { continue };
            let permit = Arc::clone(&api.uploads_room).acquire_owned().await;
            let permit = permit.expect("BUG: nobody closes this semaphore");
            let api = Arc::clone(api);
            work.spawn(async move {
                work_on(&api, &subject, message).await;
                drop(permit);
            });
        }
        if partition.is_first() && (purged.elapsed() > PURGE_EVERY || read_bytes > room_bytes / PURGED_PART) {
            (purged, read_bytes) = (Instant::now(), 0);
            purge_done(api, jetstream).await;
        }
    }
    Ok(())
}

/// The subject of an upload that this reader decides; any other is not its business any more.
async fn for_us(api: &Api, partition: Partition, message: &Message) -> Option<UpSubject> {
    match api.subjects.parse_up(&message.subject) {
        Ok(subject) if partition.owns(&subject.audience) => Some(subject),
        Ok(_) => {
            if let Err(error) = message.ack().await {
                tracing::debug!(%error, "another's upload will come by again");
            }
            None
        }
        Err(error) => {
            if partition.is_first() {
                tracing::warn!(%error, "an upload from nowhere");
            }
            settle(api, message, AckKind::Term).await;
            None
        }
    }
}

/// One delivery of one upload, from its subject to its acknowledgement.
async fn work_on(api: &Api, subject: &UpSubject, message: Message) {
    let deciding = AssertUnwindSafe(decide(api, subject, &message)).catch_unwind();
    let Ok(outcome) = deciding.await else {
        tracing::error!(client_id = %subject.client_id, "work on an upload panicked");
        return acknowledge(&message, AckKind::Nak(Some(AFTER_PANIC))).await;
    };
    let to = api.subjects.outcome(&subject.user, subject.client_id);
    if let Err(error) = api.link.client().publish(to, wire::encode(&outcome).into()).await {
        // Not acknowledged: it is delivered again, or the device asks again.
        tracing::warn!(client_id = %subject.client_id, %error, "an outcome could not be published");
        return;
    }
    settle(api, &message, AckKind::Ack).await;
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

/// Acknowledges what is decided. Whoever has not seen it yet need not, so that a large one can go.
async fn settle(api: &Api, message: &Message, kind: AckKind) {
    acknowledge(message, kind).await;
    if message.length < LARGE_BYTES {
        return;
    }
    let Ok(sequence) = message.info().map(|info| info.stream_sequence) else { return };
    let delete = format!("STREAM.MSG.DELETE.{}", streams::up_stream(&api.settings));
    let which = json!({ "seq": sequence, "no_erase": true });
    let deleted: Result<serde_json::Value, _> = message.context.request(delete, &which).await;
    if let Err(error) = deleted {
        tracing::debug!(%error, "a large upload that is done stays in the stream for now");
    }
}

/// Acknowledges and waits until NATS has it. A failure means that the upload is delivered again, with the same outcome.
async fn acknowledge(message: &Message, kind: AckKind) {
    if let Err(error) = message.double_ack_with(kind).await {
        tracing::debug!(%error, "an acknowledgement is lost");
    }
}

/// Takes out of the stream what every consumer has acknowledged, those of other counts of partitions included.
async fn purge_done(api: &Api, jetstream: &Context) {
    let purging = async {
        let stream = jetstream.get_stream_no_info(streams::up_stream(&api.settings)).await?;
        let mut missing: BTreeSet<String> = api.settings.partitions.partitions().map(Partition::consumer).collect();
        let mut floor = u64::MAX;
        let mut consumers = stream.consumers();
        while let Some(consumer) = consumers.next().await {
            let consumer = consumer?;
            missing.remove(&consumer.name);
            if consumer.name.starts_with(partition::CONSUMERS) {
                floor = floor.min(consumer.ack_floor.stream_sequence);
            }
        }
        // One that is yet to be made will want everything that it has not seen.
        if missing.is_empty() {
            stream.purge().sequence(floor + 1).await?;
        }
        Ok::<_, async_nats::Error>(())
    };
    if let Err(error) = purging.await {
        tracing::debug!(%error, "uploads that are done stay in the stream for now");
    }
}
