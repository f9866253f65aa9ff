//! A whole server in this process: the service, HTTP, NATS if there is one, the pick-up of plain SQL writes, and
//! compaction.
//!
//! Place in the journey: around it. The binary runs one of these; tests and demos run one on a free port.
//!
//! # Invariants
//! - A server that [`Server::start`] returned listens on HTTP; NATS may still be away, and comes when it comes.
//! - Shutdown takes nothing new, finishes what has begun, and ends in time.
//! - A server that is dropped stops at once; what it had begun is rolled back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::StartError;
use crate::api::http;
use crate::api::nats::{self, NatsApiSettings};
use crate::auth::{TokenVerifier, VerifierError};
use crate::service::Service;
use crate::settings::Settings;
use crate::{capture, compaction};

/// How long what has begun may take to end.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);

/// How long a start waits for NATS, which may be away.
const NATS_WITHIN: Duration = Duration::from_millis(500);

/// What a whole server needs to be told.
#[derive(Debug, Clone)]
pub struct ServerSettings {
    /// The service's part.
    pub core: Settings,
    /// Where HTTP listens; port 0 takes a free one.
    pub http_listen: SocketAddr,
    /// Where NATS is; without it, clients use HTTP.
    pub nats: Option<NatsApiSettings>,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// The service does not start.
    #[error(transparent)]
    Service(#[from] StartError),
    /// Tokens cannot be verified.
    #[error(transparent)]
    Tokens(#[from] VerifierError),
    /// HTTP cannot listen.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
}

/// One of the tasks that a server runs for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerTask {
    /// Serves HTTP.
    Http,
    /// Serves NATS.
    Nats,
    /// Publishes plain SQL writes.
    SqlWrites,
    /// Deletes what is old.
    Compaction,
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Connects to Postgres, listens, and begins to connect to NATS.
    ///
    /// # Errors
    /// [`ServerError`] if the service cannot start, tokens cannot be verified, or HTTP cannot listen.
    pub async fn start(settings: ServerSettings) -> Result<RunningServer, ServerError> {
        let ServerSettings { core, http_listen: address, nats } = settings;
        let capturing = core.sql_writes.enabled;
        if let Some(nats) = &nats {
            nats.validate().map_err(StartError::from)?;
        }
        let service = Service::connect(&core).await?;
        let verifier = Arc::new(TokenVerifier::new(&core.jwt)?);
        let listen = |source| ServerError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let http_addr = listener.local_addr().map_err(listen)?;
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tracing::info!(%http_addr, nats = ?nats.as_ref().map(|nats| &nats.servers), tables = ?core.tables, "serves");
        let router = http::router(service.clone(), Arc::clone(&verifier), stop.clone());
        let serving = http::serve(listener, router, core.http.clone(), stop.clone());
        tasks.spawn(async move {
            serving.await;
            ServerTask::Http
        });
        if let Some(nats) = nats {
            let answering = Arc::new(Notify::new());
            let serving = nats::run(service.clone(), verifier, nats, Arc::clone(&answering), stop.clone());
            tasks.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "NATS is not served");
                }
                ServerTask::Nats
            });
            // A device that NATS cannot ask about yet is kept waiting there, for longer than this takes where NATS is there.
            let _away = tokio::time::timeout(NATS_WITHIN, answering.notified()).await;
        }
        if capturing {
            let capturing = capture::run(service.clone(), stop.clone());
            tasks.spawn(async move {
                capturing.await;
                ServerTask::SqlWrites
            });
        }
        let compacting = compaction::run(service.clone(), stop.clone());
        tasks.spawn(async move {
            compacting.await;
            ServerTask::Compaction
        });
        Ok(RunningServer { http_addr, service, stop, tasks })
    }
}

/// A server that runs until it is shut down or dropped.
#[derive(Debug)]
pub struct RunningServer {
    http_addr: SocketAddr,
    service: Service,
    stop: CancellationToken,
    tasks: JoinSet<ServerTask>,
}

impl RunningServer {
    /// Where HTTP listens.
    #[must_use]
    pub const fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// The service that it serves.
    #[must_use]
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// Waits until one of its tasks ends, which none should; `None` if it panicked.
    pub async fn failed(&mut self) -> Option<ServerTask> {
        match self.tasks.join_next().await {
            Some(ended) => ended.ok(),
            None => std::future::pending().await,
        }
    }

    /// Takes nothing new, and returns when what has begun has ended.
    pub async fn shutdown(mut self) {
        self.service.leave();
        self.stop.cancel();
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_WITHIN, ending).await.is_err() {
            tracing::warn!("some work did not end in time; it is rolled back");
        }
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.stop.cancel();
        self.tasks.abort_all();
    }
}
