//! The two streams and their consumers, as they must be.
//!
//! Place in the journey: before each loop that needs them, on every connection: a store that was wiped, or another
//! server, is brought up to what is needed.
//!
//! # Invariants
//! - Every bound is explicit: nothing depends on the defaults of a NATS version.
//! - A nats-server that would silently ignore some of it is refused.
//! - What is there is never made smaller ([`fit`]); with `manage_streams = false` it is not touched at all.

mod fault;
mod fit;

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, Republish, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context, ErrorCode};
use synchrotron_nats::link::Link;
use synchrotron_nats::subjects::Subjects;

pub use fault::StreamFault;
use fit::Fit;

use super::partition::{Partition, PartitionCount};
use super::{NatsApiError, NatsApiSettings};

const VERSION_MIN: (i64, i64, i64) = (2, 12, 0);
const VERSION_MIN_TEXT: &str = "2.12.0";
/// Room for the readers of two counts of partitions, while one follows the other.
const UP_CONSUMERS_MAX: i32 = 2 * PartitionCount::MAX as i32;
/// Ours are none; these are for people who look.
const LOG_CONSUMERS_MAX: i32 = 16;
/// The largest message that any NATS carries.
const LOG_MESSAGE_BYTES_MAX: i32 = 64 << 20;
/// With less, an operator's stream would take hardly a record.
const LOG_MESSAGE_BYTES_MIN: i32 = 64 << 10;
/// Saves work when a slice is published twice; nothing depends on it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// What headers add to a message: its id, and what republishing adds.
const HEADER_BYTES_MAX: usize = 2 << 10;
/// How long JetStream may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A consumer outlives a restart of all servers.
const CONSUMER_KEPT_MIN: Duration = Duration::from_secs(10 * 60);
/// How much longer a message is ours than the work on it may take.
const ACK_MARGIN: Duration = Duration::from_secs(10);

/// JetStream of a server that is new enough.
pub(super) fn jetstream(link: &Link) -> Result<Context, NatsApiError> {
    let client = link.client().clone();
    let (major, minor, patch) = VERSION_MIN;
    if !client.is_server_compatible(major, minor, patch) {
        return Err(NatsApiError::ServerTooOld { actual: client.server_info().version, min: VERSION_MIN_TEXT });
    }
    let mut jetstream = jetstream::new(client);
    jetstream.set_timeout(ANSWER_WITHIN);
    Ok(jetstream)
}

/// A stream as it was found, or made.
#[derive(Debug)]
pub(super) struct Ensured {
    /// What NATS says about it.
    pub(super) info: Info,
    /// Whether it was not there before.
    pub(super) is_new: bool,
}

impl Ensured {
    /// The largest slice that NATS carries and the stream takes.
    pub(super) fn slice_bytes_max(&self, link: &Link) -> usize {
        let carried = link.client().max_payload();
        let taken = usize::try_from(self.info.config.max_message_size).ok().filter(|max| *max > 0);
        taken.map_or(carried, |taken| taken.min(carried)).saturating_sub(HEADER_BYTES_MAX)
    }
}

/// Brings the stream of slices about; what is stored in it is republished to whoever listens.
pub(super) async fn ensure_log(settings: &NatsApiSettings, jetstream: &Context) -> Result<Ensured, NatsApiError> {
    ensure(settings, jetstream, log_config(settings)).await
}

/// Brings the stream of uploads about.
pub(super) async fn ensure_up(settings: &NatsApiSettings, jetstream: &Context) -> Result<Ensured, NatsApiError> {
    ensure(settings, jetstream, up_config(settings)).await
}

/// Brings the consumer of a partition about.
pub(super) async fn ensure_consumer(
    settings: &NatsApiSettings,
    jetstream: &Context,
    partition: Partition,
) -> Result<Consumer<pull::Config>, NatsApiError> {
    let (stream, name) = (up_stream(settings), partition.consumer());
    let consumer = pull::Config {
        durable_name: Some(name.clone()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: settings.upload_within + ACK_MARGIN,
        // One delivery more, for the refusal of what was never finished.
        max_deliver: i64::from(settings.deliveries_max) + 1,
        max_ack_pending: i64::try_from(settings.uploads_max).unwrap_or(i64::MAX).saturating_mul(8),
        replay_policy: ReplayPolicy::Instant,
        // That of a count which nobody uses any more goes by itself, when nothing is left that it could lack.
        inactive_threshold: settings.stream_age_max.max(CONSUMER_KEPT_MIN),
        ..pull::Config::default()
    };
    let created = jetstream.create_consumer_on_stream(consumer, stream.as_str()).await;
    created.map_err(|source| NatsApiError::Consumer { stream, consumer: name, source })
}

/// The name of the stream of uploads.
pub(super) fn up_stream(settings: &NatsApiSettings) -> String {
    stream_name(settings, "UP")
}

/// The name of the stream of slices.
pub(super) fn log_stream(settings: &NatsApiSettings) -> String {
    stream_name(settings, "LOG")
}

/// `SYNC_UP` beneath `sync`: prefixes share no stream.
fn stream_name(settings: &NatsApiSettings, kind: &str) -> String {
    format!("{}_{kind}", settings.prefix).to_ascii_uppercase().replace('.', "_")
}

/// What is wanted of the stream of uploads; of one that somebody else manages, what is needed.
fn up_config(settings: &NatsApiSettings) -> Config {
    let subjects = Subjects::new(settings.prefix.clone());
    Config {
        subjects: vec![subjects.all_up().to_string()],
        discard: DiscardPolicy::New,
        max_message_size: i32::try_from(settings.upload_bytes_max + HEADER_BYTES_MAX).unwrap_or(i32::MAX),
        max_consumers: if settings.manage_streams { UP_CONSUMERS_MAX } else { settings.partitions.get().into() },
        ..bounded(settings, up_stream(settings))
    }
}

/// The same for the stream of slices.
fn log_config(settings: &NatsApiSettings) -> Config {
    let subjects = Subjects::new(settings.prefix.clone());
    let republish = Republish {
        source: subjects.all_log().to_string(),
        destination: subjects.all_live().to_string(),
        headers_only: false,
    };
    Config {
        subjects: vec![subjects.all_log().to_string()],
        discard: DiscardPolicy::Old,
        max_message_size: if settings.manage_streams { LOG_MESSAGE_BYTES_MAX } else { LOG_MESSAGE_BYTES_MIN },
        max_consumers: if settings.manage_streams { LOG_CONSUMERS_MAX } else { 0 },
        republish: Some(republish),
        ..bounded(settings, log_stream(settings))
    }
}

/// What both streams have in common.
fn bounded(settings: &NatsApiSettings, name: String) -> Config {
    Config {
        name,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: settings.replicas,
        max_age: settings.stream_age_max,
        max_bytes: settings.stream_bytes_max,
        max_messages: -1,
        max_messages_per_subject: -1,
        duplicate_window: DUPLICATE_WINDOW.min(settings.stream_age_max),
        ..Config::default()
    }
}

/// Looks at a stream, and makes or grows it where that is ours to do.
async fn ensure(settings: &NatsApiSettings, jetstream: &Context, wanted: Config) -> Result<Ensured, NatsApiError> {
    let stream = wanted.name.clone();
    let refused = |source| NatsApiError::Stream { stream: stream.clone(), source };
    let Some(info) = look(jetstream, &stream).await? else {
        if !settings.manage_streams {
            return Err(StreamFault::Missing { stream, subjects: wanted.subjects.join(",") }.into());
        }
        let made = jetstream.create_stream(wanted).await.map_err(refused)?;
        return Ok(Ensured { info: made.cached_info().clone(), is_new: true });
    };
    let Fit { update, larger } = fit::fit(&info.config, &wanted, settings.manage_streams)?;
    for fault in &larger {
        tracing::warn!(%fault, remedy = fault.remedy(), "settings are smaller than the stream");
    }
    let info = match update {
        None => info,
        Some(config) => {
            tracing::info!(stream, "a stream is brought up to the settings");
            jetstream.update_stream(config).await.map_err(refused)?
        }
    };
    Ok(Ensured { info, is_new: false })
}

/// What NATS says about a stream, if it is there.
pub(super) async fn look(jetstream: &Context, stream: &str) -> Result<Option<Info>, NatsApiError> {
    match jetstream.get_stream(stream).await {
        Ok(found) => Ok(Some(found.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(fault) if fault.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(NatsApiError::Look { stream: stream.to_owned(), source: error }),
        },
    }
}

/// What is wrong with the streams that are there, without changing anything.
pub(super) async fn faults(settings: &NatsApiSettings, jetstream: &Context) -> Result<Vec<StreamFault>, NatsApiError> {
    let mut faults = Vec::new();
    for wanted in [up_config(settings), log_config(settings)] {
        match look(jetstream, &wanted.name).await? {
            None if settings.manage_streams => {}
            None => {
                faults.push(StreamFault::Missing { stream: wanted.name, subjects: wanted.subjects.join(",") });
            }
            Some(info) => match fit::fit(&info.config, &wanted, settings.manage_streams) {
                Ok(fit) => faults.extend(fit.larger),
                Err(fault) => faults.push(fault),
            },
        }
    }
    Ok(faults)
}
