//! Slices: from the outbox to the stream, from where they go to whoever listens.
//!
//! Place in the journey: after `ingest` committed. At once after each commit; and now and then, for what a crash or an
//! outage has left.
//!
//! # Invariants
//! - Slices are sent in the order of the outbox, so those of one audience arrive in theirs unless one fails; readers see
//!   that by `prev`, and fetch.
//! - A slice stays in the outbox until the stream has said that it has it.

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use synchrotron_core::wire::{self, Slice};
use synchrotron_nats::subjects::AudienceToken;
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

use super::{Api, NatsApiError, account, streams};
use crate::service::OutboxId;

/// How many slices are read and sent at once.
const PAGE: usize = 64;
/// What headers add to a slice: its id, and what republishing adds.
const HEADER_BYTES_MAX: usize = 2 << 10;

/// Publishes until the connection is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    account::require_ours(&api.link, &api.settings.clients_account).await?;
    let jetstream = streams::jetstream(&api.link)?;
    streams::ensure_log(api, &jetstream).await?;
    tracing::info!("publishes over NATS");
    tokio::select! {
        ended = publish_for_ever(api, &jetstream) => ended,
        () = api.link.lost(connects) => Err(NatsApiError::Lost),
    }
}

async fn publish_for_ever(api: &Api, jetstream: &Context) -> Result<(), NatsApiError> {
    let mut committed = api.service.committed();
    let mut sweep = tokio::time::interval(api.settings.sweep_every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweep.tick() => {}
            changed = committed.changed() => changed.expect("BUG: the service is ours, and tells as long as it lives"),
        }
        while publish_page(api, jetstream).await? == PAGE {}
    }
}

/// Publishes the oldest slices of the outbox; how many there were.
async fn publish_page(api: &Api, jetstream: &Context) -> Result<usize, NatsApiError> {
    let page = api.service.unpublished_slices(PAGE).await?;
    let count = page.len();
    if count > 0 {
        publish(api, jetstream, page).instrument(tracing::info_span!("publish", slices = count)).await?;
    }
    Ok(count)
}

/// Publishes slices and marks those that the stream has.
async fn publish(api: &Api, jetstream: &Context, page: Vec<(OutboxId, Slice)>) -> Result<(), NatsApiError> {
    let mut sent = Vec::with_capacity(page.len());
    let mut failed = None;
    for (id, slice) in page {
        match send(api, jetstream, slice).await {
            Ok(acknowledged) => sent.push((id, acknowledged)),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let mut stored: Vec<OutboxId> = Vec::with_capacity(sent.len());
    for (id, acknowledged) in sent {
        match acknowledged.await {
            Ok(_) => stored.push(id),
            Err(error) => failed = Some(error.into()),
        }
    }
    if !stored.is_empty() {
        tracing::debug!(count = stored.len(), "slices are published");
        api.service.mark_published(&stored).await?;
    }
    failed.map_or(Ok(()), Err)
}

async fn send(api: &Api, jetstream: &Context, slice: Slice) -> Result<PublishAckFuture, NatsApiError> {
    let max = api.link.client().max_payload().saturating_sub(HEADER_BYTES_MAX);
    let subject = api.subjects.log(&slice.audience_key);
    let id = message_id(&slice);
    let payload = encode(slice, max);
    Ok(jetstream.send_publish(subject, PublishMessage::build().payload(payload.into()).message_id(id)).await?)
}

/// Names the slice by what it is; two processes that publish it at once store it once.
fn message_id(slice: &Slice) -> String {
    let Slice { epoch, audience_key, prev, through, records: _ } = slice;
    format!("{epoch}.{}.{prev}.{through}", AudienceToken::of(audience_key))
}

/// A slice that NATS would not carry goes without its records, and readers fetch them.
fn encode(mut slice: Slice, max: usize) -> Vec<u8> {
    let bytes = wire::encode(&slice);
    if bytes.len() <= max {
        return bytes;
    }
    tracing::debug!(through = %slice.through, bytes = bytes.len(), max, "a slice goes without its records");
    slice.records.clear();
    wire::encode(&slice)
}
