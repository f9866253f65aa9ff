//! NATS: uploads from a stream, requests and replies, slices to everyone who listens.
//!
//! Place in the journey: a device's message comes in as one envelope; between it and the answer is one call of
//! [`Service`]. Nothing is decided here but who asks. JetStream is a carrier that may forget everything at any time: the
//! device keeps an upload until its outcome, and Postgres keeps a slice until the stream has it.
//!
//! # Invariants
//! - Who asks is proved by the token of each message; a subject is believed only where its user is the token's.
//! - An upload is acknowledged after its outcome is decided and published, and never before.
//! - A slice is marked as published after the stream said that it has it, and never before.
//! - What cannot be read is answered, and costs nobody else anything.
//! - NATS may be away at the start, go, come back empty, or be another server: this goes on.
//!
//! Any number of processes may do all of this at once. Requests are answered by whichever NATS asks; uploads are read by the
//! one that holds the lease of their partition (`readers.rs`); slices are published by whoever commits, without a lease:
//! each process sends the outbox in its order from the first that is left, so that no slice is stored before those beneath it
//! of its audience, and what two send at once is stored once.
//!
//! Tests: `tests/nats`, and `tests/faults` for everything that breaks, over real nats-servers and a real Postgres.

mod error;
mod forward;
mod partition;
mod publish;
mod readers;
mod republish;
mod rpc;
mod settings;
mod status;
mod streams;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_nats::link::{Link, LinkOptions};
use synchrotron_nats::subjects::{Subjects, UserToken};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use error::NatsApiError;
pub use partition::{PartitionCount, PartitionCountError};
pub use republish::{Republished, republish};
pub use settings::NatsApiSettings;
pub(crate) use status::stream_faults;
pub use status::{NatsStatus, StreamStatus};
pub use streams::StreamFault;

use republish::LogSeen;

use crate::auth::{Principal, TokenVerifier};
use crate::metrics::{AuthRefusal, METRICS};
use crate::service::Service;

/// What all loops share.
#[derive(Debug)]
struct Api {
    service: Service,
    verifier: Arc<TokenVerifier>,
    settings: NatsApiSettings,
    subjects: Subjects,
    link: Link,
    uploads_room: Arc<Semaphore>,
    requests_room: Arc<Semaphore>,
    log_seen: LogSeen,
    shutdown: CancellationToken,
}

/// The pause before a loop begins anew, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A loop that ran so long had begun well.
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long NATS may take to be reached by who only asks.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long work that has begun may take to end at shutdown.
const WORK_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Serves over NATS until `shutdown`, whatever happens to NATS; then finishes what has begun.
pub async fn run(
    service: Service,
    verifier: Arc<TokenVerifier>,
    settings: NatsApiSettings,
    shutdown: CancellationToken,
) {
    let link = connect(&settings).await;
    let api = Arc::new(Api {
        service,
        verifier,
        subjects: Subjects::new(settings.prefix.clone()),
        link,
        uploads_room: Arc::new(Semaphore::new(settings.uploads_max)),
        requests_room: Arc::new(Semaphore::new(settings.requests_max)),
        log_seen: LogSeen::default(),
        settings,
        shutdown,
    });
    tokio::join!(
        supervise(&api, "rpc", rpc::serve),
        readers::run(&api),
        supervise(&api, "publish", publish::serve),
        watch_link(&api),
    );
    api.finish().await;
}

/// Begins to connect as the server.
async fn connect(settings: &NatsApiSettings) -> Link {
    Link::connect(LinkOptions {
        servers: settings.servers.clone(),
        name: "synchrotron-server",
        connect_within: Duration::from_secs(5),
        reconnect_pause_max: PAUSE_MAX,
        ping_every: Duration::from_secs(5),
        capacity: settings.requests_waiting_max,
    })
    .await
}

/// Tells whether NATS is connected, until shutdown. Devices go on over HTTP meanwhile, but hear of changes later.
async fn watch_link(api: &Api) {
    let watching = async {
        loop {
            let connects = api.link.up().await;
            METRICS.nats_connected.set(1);
            tracing::info!(connects, "NATS is connected");
            api.link.lost(connects).await;
            METRICS.nats_connected.set(0);
            tracing::warn!(connects, "NATS is away");
        }
    };
    tokio::select! {
        () = watching => {}
        () = api.shutdown.cancelled() => {}
    }
    METRICS.nats_connected.set(0);
}

/// Runs a loop for as long as the connection lives, and anew after each failure, until shutdown.
async fn supervise(
    api: &Arc<Api>,
    name: &'static str,
    serve: impl AsyncFn(&Arc<Api>, u64) -> Result<(), NatsApiError>,
) {
    let mut pause = PAUSE_MIN;
    let begin_anew = async {
        loop {
            let connects = api.link.up().await;
            let began = Instant::now();
            match serve(api, connects).await {
                Ok(()) => return,
                Err(NatsApiError::Lost) => tracing::debug!(name, "waits for NATS"),
                Err(error) => {
                    tracing::warn!(name, %error, "begins anew");
                    pause = if began.elapsed() > RAN_WELL { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
                    tokio::time::sleep(pause).await;
                }
            }
        }
    };
    tokio::select! {
        () = begin_anew => {}
        () = api.shutdown.cancelled() => {}
    }
}

impl Api {
    /// Who sends, if its token proves the user of the subject.
    async fn admit(&self, headers: Option<&async_nats::HeaderMap>, user: &UserToken) -> Result<Principal, Fault> {
        let refused = |refusal, fact| {
            METRICS.auth_refused(refusal);
            Fault::new(FaultCode::Unauthenticated, fact)
        };
        let token = synchrotron_nats::bearer::bearer_of(headers).ok_or_else(|| {
            refused(AuthRefusal::NoToken, "the message has no Authorization header with a bearer token")
        })?;
        let principal = self.verifier.verify(token).await?;
        if UserToken::of(&principal.user_id) == *user {
            Ok(principal)
        } else {
            Err(refused(AuthRefusal::ForeignSubject, "the subject's user is not the token's"))
        }
    }

    /// Waits until all work that has begun has ended, and what it sent is on its way.
    async fn finish(&self) {
        let count = |max: usize| u32::try_from(max).unwrap_or(u32::MAX);
        let finishing = async {
            let _requests = self.requests_room.acquire_many(count(self.settings.requests_max)).await;
            if self.link.state().connected
                && let Err(error) = self.say_the_rest().await
            {
                tracing::debug!(%error, "NATS went before us");
            }
        };
        if tokio::time::timeout(WORK_ENDS_WITHIN, finishing).await.is_err() {
            tracing::warn!("some work over NATS did not end in time; it is rolled back and will be sent again");
        }
    }

    /// What the last uploads led to need not wait for another process.
    async fn say_the_rest(&self) -> Result<(), async_nats::Error> {
        publish::publish_the_rest(self).await?;
        Ok(self.link.client().flush().await?)
    }
}
