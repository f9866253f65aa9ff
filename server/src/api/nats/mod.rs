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
//! Tests: `tests/nats.rs`, over a real nats-server and a real Postgres.

mod account;
mod callout;
mod conf;
mod error;
mod forward;
mod keys;
mod membership;
mod publish;
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
pub use settings::NatsApiSettings;
pub use status::{NatsStatus, StreamStatus};

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
    requests_room: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// The pause before a loop begins anew, doubled up to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// A loop that ran so long had begun well.
const RAN_WELL: Duration = Duration::from_secs(10);
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
        link: connect(&settings, settings.login.clone().unwrap_or_else(|| keys.server_login())).await,
        logins: connect(&settings, settings.callout_login.clone().unwrap_or_else(|| keys.callout_login())).await,
        system: connect(&settings, settings.system_login.clone().unwrap_or_else(|| keys.system_login())).await,
        connections: Connections::default(),
        answering,
        keys,
        uploads_room: Arc::new(Semaphore::new(settings.uploads_max)),
        requests_room: Arc::new(Semaphore::new(settings.requests_max)),
        settings,
        shutdown,
    });
    tokio::join!(
        supervise(&api, "callout", &api.logins, callout::serve),
        supervise(&api, "membership", &api.system, membership::serve),
        supervise(&api, "rpc", &api.link, rpc::serve),
        supervise(&api, "uploads", &api.link, uploads::serve),
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
        let count = |max: usize| u32::try_from(max).unwrap_or(u32::MAX);
        let finishing = async {
            let _uploads = self.uploads_room.acquire_many(count(self.settings.uploads_max)).await;
            let _requests = self.requests_room.acquire_many(count(self.settings.requests_max)).await;
            if self.link.state().connected
                && let Err(error) = self.link.client().flush().await
            {
                tracing::debug!(%error, "NATS went before us");
            }
        };
        if tokio::time::timeout(WORK_ENDS_WITHIN, finishing).await.is_err() {
            tracing::warn!("some work over NATS did not end in time; it is rolled back and will be sent again");
        }
    }
}
