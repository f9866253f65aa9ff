//! Slices of the past: from Postgres into a stream that lost them.
//!
//! Place in the journey: beside [`super::publish`]. Devices need none of it: what a stream lost, they fetch from Postgres.
//! It saves them the wait until they notice, and fills the stream for whoever else reads it.
//!
//! A server does it by itself for the newest minutes, when the stream is new, or ends before what this process knows to be
//! in it: an acknowledgement of JetStream means that a quorum had it in memory. The command `republish` does it for as much
//! of the log as there is.
//!
//! # Invariants
//! - Slices of the past say where they belong as all others do; who has them drops them.
//! - Doing it again, or twice at once, stores once what falls into the stream's duplicate window.

use std::sync::Mutex;
use std::time::Duration;

use serde::Serialize;
use synchrotron_nats::subjects::Subjects;

use super::publish::{Publisher, all_stored};
use super::streams::Ensured;
use super::{Api, NatsApiError, NatsApiSettings, status, streams};
use crate::service::Service;

/// What was published again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Republished {
    /// How many slices.
    pub slices: u64,
    /// How many records in them, counted once for each audience.
    pub records: u64,
    /// How many messages that made, as the stream has a largest size.
    pub messages: u64,
    /// How many of them the stream had already.
    pub known: u64,
}

/// What this process knows of the stream of slices.
#[derive(Debug, Default)]
pub(super) struct LogSeen(Mutex<Option<Seen>>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    created: i128,
    last_sequence: u64,
}

impl LogSeen {
    /// The stream has a message of this number.
    pub(super) fn has(&self, sequence: u64) {
        if let Some(seen) = &mut *self.lock() {
            seen.last_sequence = seen.last_sequence.max(sequence);
        }
    }

    /// Whether the stream, as it is found now, lacks something that it had; and remembers it as it is.
    fn lacks(&self, ensured: &Ensured) -> bool {
        let info = &ensured.info;
        let found = Seen { created: info.created.unix_timestamp_nanos(), last_sequence: info.state.last_sequence };
        let before = self.lock().replace(found);
        let is_less = |seen: Seen| seen.created != found.created || seen.last_sequence > found.last_sequence;
        ensured.is_new || before.is_some_and(is_less)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Seen>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Publishes the newest minutes again if the stream lacks what it had.
pub(super) async fn mend(api: &Api, publisher: &Publisher<'_>, ensured: &Ensured) -> Result<(), NatsApiError> {
    if !api.log_seen.lacks(ensured) || api.settings.republish.is_zero() {
        return Ok(());
    }
    let newest = Some(api.settings.republish);
    let done = publish_past(&api.service, publisher, newest).await?;
    if done.slices > 0 {
        let Republished { slices, records, known, .. } = done;
        tracing::warn!(slices, records, known, "the stream of slices is new or lost some: published the newest again");
    }
    Ok(())
}

/// Publishes the newest part of the log again that is as long as `newest`, or all of it, into a stream that may be empty.
///
/// # Errors
/// [`NatsApiError`]; what was published stays, and doing it again does no harm.
pub async fn republish(
    service: &Service,
    settings: &NatsApiSettings,
    newest: Option<Duration>,
) -> Result<Republished, NatsApiError> {
    let link = status::reach(settings).await?;
    let jetstream = streams::jetstream(&link)?;
    let ensured = streams::ensure_log(settings, &jetstream).await?;
    let subjects = Subjects::new(settings.prefix.clone());
    publish_past(service, &Publisher::new(&subjects, &link, &jetstream, &ensured), newest).await
}

async fn publish_past(
    service: &Service,
    publisher: &Publisher<'_>,
    newest: Option<Duration>,
) -> Result<Republished, NatsApiError> {
    let mut done = Republished::default();
    let mut past = service.past_slices(newest).await?;
    while let Some(slices) = service.next_past_slices(&mut past).await? {
        let mut sent = Vec::with_capacity(slices.len());
        for slice in slices {
            done.slices += 1;
            done.records += slice.records.len() as u64;
            sent.push(publisher.send(slice).await?);
        }
        for acknowledged in sent {
            let acks = all_stored(acknowledged).await?;
            done.messages += acks.len() as u64;
            done.known += acks.iter().filter(|ack| ack.duplicate).count() as u64;
        }
    }
    Ok(done)
}
