//! Slices: from the outbox to the stream, from where they go to whoever listens.
//!
//! Place in the journey: after `ingest` committed. At once after each commit, without reading it again where it follows what
//! was sent before; and now and then from the outbox, for what a crash or an outage has left.
//!
//! # Invariants
//! - Slices are sent in the order of the outbox, so those of one audience arrive in theirs unless one fails; readers see
//!   that by `prev`, and fetch. Two processes that send at once keep it, too: each sends what is left from the beginning,
//!   unless it sent what was before ([`super::chains`]).
//! - A slice stays in the outbox until the stream has said that it has it, and leaves it a moment later
//!   ([`super::published`]).

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use synchrotron_core::model::Cursor;
use synchrotron_core::wire::{self, Slice};
use synchrotron_nats::link::Link;
use synchrotron_nats::subjects::{AudienceToken, Subjects};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::MissedTickBehavior;
use tracing::Instrument;

use super::chains::Chains;
use super::published::Published;
use super::streams::Ensured;
use super::{Api, NatsApiError, account, republish, streams};
use crate::service::{Fresh, OutboxId};

/// How many slices are read and sent at once.
const PAGE: usize = 64;

/// Publishes until the connection is lost.
pub(super) async fn serve(api: &Arc<Api>, connects: u64) -> Result<(), NatsApiError> {
    account::require_ours(&api.link, &api.settings.clients_account)?;
    let jetstream = streams::jetstream(&api.link)?;
    // Whoever will read them: until then they are kept. What is wrong with it keeps no slice back.
    if let Err(error) = streams::ensure_up(&api.settings, &jetstream).await {
        tracing::warn!(%error, "the stream of uploads will not do");
    }
    let ensured = streams::ensure_log(&api.settings, &jetstream).await?;
    tracing::info!("publishes over NATS");
    let publisher = Publisher::new(&api.subjects, &api.link, &jetstream, &ensured);
    let publishing = async {
        republish::mend(api, &publisher, &ensured).await?;
        publish_for_ever(api, &publisher).await
    };
    tokio::select! {
        ended = publishing => ended,
        () = api.link.lost(connects) => Err(NatsApiError::Lost),
    }
}

async fn publish_for_ever(api: &Api, publisher: &Publisher<'_>) -> Result<(), NatsApiError> {
    let mut fresh = api.service.fresh_slices();
    let mut chains = Chains::default();
    let mut published = Published::default();
    let mut sweep = tokio::time::interval(api.settings.sweep_every);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let slices = tokio::select! {
            _ = sweep.tick() => None,
            slices = told(&mut fresh) => slices,
            () = published.due() => {
                published.forget(api).await?;
                continue;
            }
        };
        match slices.and_then(|slices| chains.continued_by(slices)) {
            Some(mut next) => {
                while !next.is_empty() {
                    let rest = next.split_off(next.len().min(PAGE));
                    publish(api, publisher, std::mem::replace(&mut next, rest), &mut published).await?;
                }
            }
            None => {
                published.forget(api).await?;
                publish_outbox(api, publisher, &mut chains).await?;
            }
        }
    }
}

/// Waits for a commit. The slices of all that are told by then, in the order of the outbox; `None` if there are others in it.
async fn told(fresh: &mut broadcast::Receiver<Arc<Fresh>>) -> Option<Fresh> {
    let mut all = Fresh::new();
    // One who was too slow to hear has missed some.
    let mut next = fresh.recv().await.ok()?;
    loop {
        if next.is_empty() {
            return None;
        }
        all.append(&mut Arc::unwrap_or_clone(next));
        next = match fresh.try_recv() {
            Ok(next) => next,
            Err(TryRecvError::Empty) => break,
            Err(TryRecvError::Lagged(_) | TryRecvError::Closed) => return None,
        };
    }
    all.sort_by_key(|(id, _)| *id);
    Some(all)
}

/// Publishes what is left, once.
pub(super) async fn publish_the_rest(api: &Api) -> Result<(), NatsApiError> {
    let jetstream = streams::jetstream(&api.link)?;
    let ensured = streams::ensure_log(&api.settings, &jetstream).await?;
    let publisher = Publisher::new(&api.subjects, &api.link, &jetstream, &ensured);
    publish_outbox(api, &publisher, &mut Chains::default()).await
}

async fn publish_outbox(api: &Api, publisher: &Publisher<'_>, chains: &mut Chains) -> Result<(), NatsApiError> {
    loop {
        let page = api.service.unpublished_slices(PAGE).await?;
        let count = page.len();
        if count == 0 {
            return Ok(());
        }
        page.iter().for_each(|(_, slice)| chains.note(slice));
        let mut published = Published::default();
        let sent = publish(api, publisher, page, &mut published).await;
        published.forget(api).await?;
        sent?;
        if count < PAGE {
            return Ok(());
        }
    }
}

/// Publishes slices, and notes those that the stream has.
async fn publish(
    api: &Api,
    publisher: &Publisher<'_>,
    page: Vec<(OutboxId, Slice)>,
    published: &mut Published,
) -> Result<(), NatsApiError> {
    let span = tracing::info_span!("publish", slices = page.len());
    let publishing = async {
        let mut sent = Vec::with_capacity(page.len());
        let mut failed = None;
        for (id, slice) in page {
            match publisher.send(slice).await {
                Ok(acknowledged) => sent.push((id, acknowledged)),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        for (id, acknowledged) in sent {
            match all_stored(acknowledged).await {
                Ok(acks) => {
                    published.note(id);
                    acks.iter().for_each(|ack| api.log_seen.has(ack.sequence));
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    };
    publishing.instrument(span).await
}

/// Waits until the stream has all parts of a slice.
pub(super) async fn all_stored(acknowledged: Vec<PublishAckFuture>) -> Result<Vec<PublishAck>, NatsApiError> {
    let mut acks = Vec::with_capacity(acknowledged.len());
    for acknowledged in acknowledged {
        acks.push(acknowledged.await?);
    }
    Ok(acks)
}

/// Sends slices into the stream.
pub(super) struct Publisher<'a> {
    subjects: &'a Subjects,
    jetstream: &'a Context,
    bytes_max: usize,
}

impl<'a> Publisher<'a> {
    /// Into this stream.
    pub(super) fn new(subjects: &'a Subjects, link: &Link, jetstream: &'a Context, stream: &Ensured) -> Self {
        Self { subjects, jetstream, bytes_max: stream.slice_bytes_max(link) }
    }

    /// Sends a slice, in parts if it would not be taken whole.
    pub(super) async fn send(&self, slice: Slice) -> Result<Vec<PublishAckFuture>, NatsApiError> {
        let subject = self.subjects.log(&slice.audience_key);
        let mut sent = Vec::new();
        for Part { id, payload } in parts(slice, self.bytes_max) {
            let message = PublishMessage::build().payload(payload.into()).message_id(id);
            sent.push(self.jetstream.send_publish(subject.clone(), message).await?);
        }
        Ok(sent)
    }
}

/// What is sent as one message.
struct Part {
    id: String,
    payload: Vec<u8>,
}

/// A slice that is too large becomes two that follow each other; a record that is too large alone goes without its content,
/// and readers fetch it.
fn parts(mut slice: Slice, max: usize) -> Vec<Part> {
    let mut payload = wire::encode(&slice);
    if payload.len() > max && slice.records.len() > 1 {
        let upper = slice.records.split_off(slice.records.len() / 2);
        let last = slice.records.last().and_then(|record| record.record.server_ingest_id);
        let between = last.map_or(slice.prev, Cursor::through);
        let upper = Slice { prev: between, records: upper, audience_key: slice.audience_key.clone(), ..slice };
        let lower = Slice { through: between, ..slice };
        return [lower, upper].into_iter().flat_map(|half| parts(half, max)).collect();
    }
    if payload.len() > max {
        tracing::debug!(through = %slice.through, bytes = payload.len(), max, "a slice goes without its records");
        slice.records.clear();
        payload = wire::encode(&slice);
    }
    vec![Part { id: message_id(&slice), payload }]
}

/// Names the slice by what it is; two processes that publish it at once store it once.
fn message_id(slice: &Slice) -> String {
    let Slice { epoch, audience_key, prev, through, records: _ } = slice;
    format!("{epoch}.{}.{prev}.{through}", AudienceToken::of(audience_key))
}

#[cfg(test)]
mod tests {
    use synchrotron_core::model::{
        ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Epoch, Hlc, RecordBody, ServerIngestId,
        UserId,
    };
    use synchrotron_core::wire::LogRecord;
    use uuid::Uuid;

    use super::*;

    fn record(number: i64, bytes: usize) -> LogRecord {
        let encoded = rmp_serde::to_vec_named(&serde_json::json!({ "text": "x".repeat(bytes) })).expect("encodes");
        let args = ActionArgs::from_encoded(encoded).expect("a map");
        LogRecord {
            record: ActionRecord {
                id: ActionId::from_uuid(Uuid::from_u128(u128::from(number.unsigned_abs()))),
                clock: Hlc::at_millis(number),
                client_id: ClientId::from_uuid(Uuid::nil()),
                user_id: UserId::new("alice").expect("ok"),
                server_ingest_id: Some(ServerIngestId::new(number)),
                trace_parent: None,
                body: RecordBody::Action { tag: ActionTag::new("write_v1").expect("ok"), args },
            },
            row_count: 0,
            slices: Vec::new(),
            rows: Vec::new(),
        }
    }

    #[test]
    fn a_slice_that_is_too_large_goes_in_parts_that_form_its_chain() {
        let sizes = [100, 3_000, 90, 10, 9_000, 40, 2_000];
        let slice = Slice {
            epoch: Epoch::from_uuid(Uuid::nil()),
            audience_key: AudienceKey::new("project:1").expect("ok"),
            prev: Cursor::new(5),
            through: Cursor::new(70),
            records: sizes.iter().zip(1..).map(|(bytes, number)| record(number * 10, *bytes)).collect(),
        };
        for max in [1_000_000, 8_000, 4_000, 1_500] {
            let sent: Vec<Slice> = parts(slice.clone(), max)
                .iter()
                .map(|part| {
                    assert!(part.payload.len() <= max);
                    wire::decode(&part.payload, max).expect("reads")
                })
                .collect();
            assert_eq!((sent[0].prev, sent[sent.len() - 1].through), (slice.prev, slice.through));
            assert!(sent.windows(2).all(|pair| pair[0].through == pair[1].prev), "max {max}");
            let records = sent.iter().flat_map(|slice| &slice.records);
            let all: Vec<_> = records.filter_map(|record| record.record.server_ingest_id).collect();
            let whole = sizes.iter().zip(1..).filter(|(bytes, _)| **bytes < max);
            assert_eq!(all, whole.map(|(_, number)| ServerIngestId::new(number * 10)).collect::<Vec<_>>(), "max {max}");
        }
        assert_eq!(parts(slice.clone(), 1_000_000).len(), 1);
        let ids = |max| parts(slice.clone(), max).into_iter().map(|part| part.id).collect::<Vec<_>>();
        assert_eq!(ids(4_000), ids(4_000));
    }
}
