//! NATS: uploads from a stream, requests and replies, slices to everyone who listens.
//!
//! Place in the journey: a device's message comes in as one envelope; between it and the answer is one call of
//! [`Service`]. Nothing is decided here but who asks. JetStream is a carrier that may forget everything at any time: the
//! device keeps an upload until its outcome, and Postgres keeps a slice until the stream has it.
//!
//! # Invariants
//! - Who asks is proved by the connection: NATS asks us who it is (`callout`), and lets it publish only to subjects of its
//!   own user. A NATS server that does not ask is not served.
//! - Rights end when the token or the membership does (`membership`).
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

mod account;
mod admission;
mod callout;
mod chains;
mod conf;
mod error;
mod forward;
mod keys;
mod membership;
mod partition;
mod publish;
mod published;
mod readers;
mod republish;
mod rpc;
mod settings;
mod status;
mod streams;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use synchrotron_nats::link::{Link, LinkOptions, Login};
use synchrotron_nats::subjects::{Subjects, UserToken};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use conf::NatsConf;
pub use error::NatsApiError;
pub use keys::NatsKeys;
pub use partition::{PartitionCount, PartitionCountError};
pub use republish::{Republished, republish};
pub use settings::NatsApiSettings;
pub(crate) use status::stream_faults;
pub use status::{NatsStatus, StreamStatus};
pub use streams::StreamFault;

use republish::LogSeen;

use self::admission::Admission;
use self::forward::Neighbours;
use self::membership::Connections;
use crate::auth::{Principal, TokenVerifier};
use crate::metrics::METRICS;
use crate::service::Service;
use crate::settings::SettingsError;

/// What all loops share.
#[derive(Debug)]
struct Api {
    service: Service,
    verifier: Arc<TokenVerifier>,
    settings: NatsApiSettings,
    keys: NatsKeys,
    subjects: Subjects,
    /// Where the streams are, and all that devices reach.
    link: Link,
    /// Where NATS asks who connects.
    logins: Link,
    /// Where NATS tells who connected, and is told to end connections.
    system: Link,
    connections: Connections,
    /// Told when devices can be let in.
    answering: Arc<Notify>,
    uploads_room: Arc<Semaphore>,
    admission: Admission,
    log_seen: LogSeen,
    shutdown: CancellationToken,
}

/// Of requests and logins, each goes to one process.
const QUEUE: &str = "synchrotron-server";
/// The pause before a loop begins anew, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A loop that ran so long had begun well.
const RAN_WELL: Duration = Duration::from_secs(10);
/// How long NATS may take to be reached by who only asks.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long work that has begun may take to end at shutdown.
const WORK_ENDS_WITHIN: Duration = Duration::from_secs(10);

/// Serves over NATS until `shutdown`, whatever happens to NATS; then finishes what has begun. Says on `answering` when devices
/// can be let in.
///
/// # Errors
/// [`SettingsError`] if there is no secret to make keys of.
pub async fn run(
    service: Service,
    verifier: Arc<TokenVerifier>,
    settings: NatsApiSettings,
    answering: Arc<Notify>,
    shutdown: CancellationToken,
) -> Result<(), SettingsError> {
    let keys = settings.keys()?;
    let api = Arc::new(Api {
        service,
        verifier,
        subjects: Subjects::new(settings.prefix.clone()),
        link: connect(&settings, settings.login_with(&keys)).await,
        logins: connect(&settings, settings.callout_login.clone().unwrap_or_else(|| keys.callout_login())).await,
        system: connect(&settings, settings.system_login.clone().unwrap_or_else(|| keys.system_login())).await,
        connections: Connections::default(),
        answering,
        keys,
        uploads_room: Arc::new(Semaphore::new(settings.uploads_max)),
        admission: Admission::new(&settings),
        log_seen: LogSeen::default(),
        settings,
        shutdown,
    });
    let neighbours =
        Neighbours { link: api.link.clone(), subjects: api.subjects.clone(), within: api.settings.request_within };
    api.service.reach_others_by(Arc::new(neighbours));
    tokio::join!(
        supervise(&api, "callout", &api.logins, callout::serve),
        supervise(&api, "membership", &api.system, membership::serve),
        supervise(&api, "rpc", &api.link, rpc::serve),
        readers::run(&api),
        supervise(&api, "publish", &api.link, publish::serve),
        watch_link(&api),
    );
    api.finish().await;
    Ok(())
}

/// Begins to connect as the server.
async fn connect(settings: &NatsApiSettings, login: Login) -> Link {
    Link::connect(LinkOptions {
        servers: settings.servers.clone(),
        login,
        tls: settings.tls(),
        name: "synchrotron-server",
        inbox_prefix: "_INBOX".to_owned(),
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
    link: &Link,
    serve: impl AsyncFn(&Arc<Api>, u64) -> Result<(), NatsApiError>,
) {
    let mut pause = PAUSE_MIN;
    let begin_anew = async {
        loop {
            let connects = link.up().await;
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
    /// Who sends: the subject's user, whose connection alone may publish to it.
    fn sender(user: &UserToken) -> Principal {
        Principal { user_id: user.user_id(), expires_at: None }
    }

    /// Waits until all work that has begun has ended, and what it sent is on its way.
    async fn finish(&self) {
        let finishing = async {
            self.admission.is_empty(&self.settings).await;
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
