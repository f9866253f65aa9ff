//! The two streams and the one consumer, as they must be.
//!
//! Place in the journey: before each loop that needs them, on every connection: a store that was wiped, or another
//! server, is brought up to what is needed.
//!
//! # Invariants
//! - Every bound is explicit: nothing depends on the defaults of a NATS version.
//! - A nats-server that would silently ignore some of it is refused.

use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use std::time::Duration;
use synchrotron_nats::link::Link;
use synchrotron_nats::subjects::Subjects;

use super::{Api, NatsApiError};

/// The durable consumer that all server processes share.
pub(super) const CONSUMER: &str = "synchrotron-server";

const VERSION_MIN: (i64, i64, i64) = (2, 12, 0);
const VERSION_MIN_TEXT: &str = "2.12.0";
/// Ours is one; the rest is for people who look.
const CONSUMERS_MAX: i32 = 16;
/// Saves work when a slice is published twice; nothing depends on it.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(2 * 60);
/// What headers add to an upload: a token, and names.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// How long JetStream may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
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

/// Brings the stream of slices about; what is stored in it is republished to whoever listens.
pub(super) async fn ensure_log(api: &Api, jetstream: &Context) -> Result<(), NatsApiError> {
    let republish = Republish {
        source: api.subjects.all_log().to_string(),
        destination: api.subjects.all_live().to_string(),
        headers_only: false,
    };
    let config = Config {
        subjects: vec![api.subjects.all_log().to_string()],
        discard: DiscardPolicy::Old,
        max_message_size: -1,
        republish: Some(republish),
        ..bounded(api, log_stream(&api.subjects))
    };
    ensure(jetstream, config).await
}

/// Brings the stream of uploads and its consumer about.
pub(super) async fn ensure_uploads(api: &Api, jetstream: &Context) -> Result<Consumer<pull::Config>, NatsApiError> {
    let stream = up_stream(&api.subjects);
    let config = Config {
        subjects: vec![api.subjects.all_up().to_string()],
        discard: DiscardPolicy::New,
        max_message_size: i32::try_from(api.settings.upload_bytes_max + HEADER_BYTES_MAX).unwrap_or(i32::MAX),
        ..bounded(api, stream.clone())
    };
    ensure(jetstream, config).await?;
    let consumer = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: api.settings.upload_within + ACK_MARGIN,
        // One delivery more, for the refusal of what was never finished.
        max_deliver: i64::from(api.settings.deliveries_max) + 1,
        max_ack_pending: i64::try_from(api.settings.uploads_max).unwrap_or(i64::MAX).saturating_mul(8),
        replay_policy: ReplayPolicy::Instant,
        num_replicas: api.settings.replicas,
        ..pull::Config::default()
    };
    let created = jetstream.create_consumer_on_stream(consumer, stream.as_str()).await;
    created.map_err(|source| NatsApiError::Consumer { stream, consumer: CONSUMER, source })
}

/// The stream of uploads.
pub(super) fn up_stream(subjects: &Subjects) -> String {
    stream_name(subjects, "UP")
}

/// The stream of slices.
pub(super) fn log_stream(subjects: &Subjects) -> String {
    stream_name(subjects, "LOG")
}

/// `SYNC_UP` beneath `sync`: prefixes share no stream.
fn stream_name(subjects: &Subjects, kind: &str) -> String {
    format!("{}_{kind}", subjects.prefix()).to_ascii_uppercase().replace('.', "_")
}

/// What both streams have in common.
fn bounded(api: &Api, name: String) -> Config {
    Config {
        name,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        num_replicas: api.settings.replicas,
        max_age: api.settings.stream_age_max,
        max_bytes: api.settings.stream_bytes_max,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_consumers: CONSUMERS_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    }
}

async fn ensure(jetstream: &Context, config: Config) -> Result<(), NatsApiError> {
    let stream = config.name.clone();
    let ensured = jetstream.create_or_update_stream(config).await;
    ensured.map(drop).map_err(|source| NatsApiError::Stream { stream, source })
}
