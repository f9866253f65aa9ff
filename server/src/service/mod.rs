//! The server's core: what a transport can ask for.
//!
//! Place in the journey: every transport decodes, calls one function here, and encodes. Which transport asks makes no
//! difference. Errors that reach a caller are wire types; what they hide is in the log.

mod publishing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use sqlx_postgres::PgPool;
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest, UploadBatch,
};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::StartError;
use crate::audiences::{audiences_of, audiences_of_all};
use crate::auth::Principal;
use crate::capture;
use crate::clock::now_ms;
use crate::fetch;
use crate::ingest::{Ingest, IngestQueue, bind_client, foreign_client, read_epoch};
use crate::materialize::Catalogue;
use crate::metrics::{METRICS, outcome_word};
use crate::observe::observe;
use crate::outbox::Announcer;
use crate::read::ReadError;
use crate::settings::Settings;
use crate::snapshot::Snapshots;
use crate::trouble::unavailable;
use crate::{pg, telemetry};

pub use crate::outbox::{Fresh, OutboxId};
pub use crate::snapshot::ProcessId;

/// The server's core, shared by all transports of a process.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    settings: Settings,
    catalogue: Arc<Catalogue>,
    ingest: IngestQueue,
    snapshots: Arc<Snapshots>,
    committed: watch::Sender<u64>,
    announcer: Announcer,
    /// Nothing new should come: another process is to be asked.
    leaving: AtomicBool,
    others: OnceLock<Arc<dyn OtherProcesses>>,
}

/// The other processes of this server, where something carries requests to them.
#[async_trait]
pub(crate) trait OtherProcesses: fmt::Debug + Send + Sync {
    /// Whether it does now.
    fn are_reachable(&self) -> bool;

    /// The chunk of a snapshot that this process holds.
    async fn snapshot(
        &self,
        holder: ProcessId,
        user_id: &UserId,
        request: &SnapshotRequest,
    ) -> Result<SnapshotChunk, Fault>;
}

/// How long Postgres may take to say that it is there.
const READY_WITHIN: Duration = Duration::from_secs(2);

impl Service {
    /// Connects, brings the schema up to date and reads the tracked tables' catalogue.
    ///
    /// # Errors
    /// [`StartError`], naming what is missing or unsafe.
    pub async fn connect(settings: &Settings) -> Result<Self, StartError> {
        settings.validate()?;
        let pool = pg::connect(settings).await?;
        let catalogue = Arc::new(Catalogue::load(&pool, settings).await?);
        capture::install(&pool, &catalogue, settings.sql_writes.enabled).await?;
        let snapshots = Snapshots::start(settings, Arc::clone(&catalogue))?;
        let announcer = Announcer::new();
        let working = Ingest {
            pool: pool.clone(),
            settings: settings.clone(),
            catalogue: Arc::clone(&catalogue),
            announcer: announcer.clone(),
        };
        let ingest = IngestQueue::start(working);
        let (committed, leaving) = (watch::Sender::new(0), AtomicBool::new(false));
        let (settings, others) = (settings.clone(), OnceLock::new());
        let inner =
            Arc::new(Inner { pool, settings, catalogue, ingest, snapshots, committed, announcer, leaving, others });
        let observed = Arc::downgrade(&inner);
        tokio::spawn(observe(move || {
            let inner = observed.upgrade()?;
            Some((inner.pool.clone(), inner.snapshots.open_count()))
        }));
        Ok(Self { inner })
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Where everything is kept.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.inner.pool
    }

    /// The tracked tables.
    pub(crate) fn catalogue(&self) -> &Catalogue {
        &self.inner.catalogue
    }

    /// Opens a session: binds the device to the user and tells the user's audiences with their heads.
    ///
    /// # Errors
    /// [`FaultCode::ForeignClient`], [`FaultCode::Unavailable`].
    pub async fn session(&self, principal: &Principal, request: SessionRequest) -> Result<Session, Fault> {
        self.open_session(&principal.user_id, request).await.map_err(|error| fault_of("session", error))
    }

    async fn open_session(&self, user_id: &UserId, request: SessionRequest) -> Result<Session, ReadError> {
        let mut tx = self.inner.pool.begin().await?;
        if bind_client(&mut tx, request.client_id, user_id).await? != user_id.as_str() {
            return Err(foreign_client().into());
        }
        let epoch = read_epoch(&mut tx).await?;
        let audiences = fetch::audience_heads(&mut tx, user_id, request.client_id).await?;
        tx.commit().await?;
        Ok(Session { user_id: user_id.clone(), epoch, server_time_ms: now_ms(), audiences })
    }

    /// One page of the records after the request's cursors.
    ///
    /// # Errors
    /// [`FaultCode::ForeignClient`], [`FaultCode::EpochChanged`], [`FaultCode::Compacted`] if records that the device may
    /// lack are gone, [`FaultCode::Unavailable`].
    pub async fn fetch(&self, principal: &Principal, request: FetchRequest) -> Result<FetchPage, Fault> {
        let Inner { pool, settings, .. } = &*self.inner;
        let span = tracing::info_span!("fetch", client_id = %request.client_id, audiences = request.cursors.len());
        let fetched = fetch::fetch(pool, settings, &principal.user_id, &request).instrument(span).await;
        fetched.inspect(|_| METRICS.fetches.increment(1)).map_err(|error| fault_of("fetch", error))
    }

    /// This process, as the ids of its snapshots name it.
    #[must_use]
    pub fn process_id(&self) -> ProcessId {
        self.inner.snapshots.process()
    }

    /// From now on, other processes are reached by these; the first ones stay.
    pub(crate) fn reach_others_by(&self, others: Arc<dyn OtherProcesses>) {
        let _there_are_some = self.inner.others.set(others);
    }

    /// One chunk of a snapshot of the user's audiences: the first, or the one after the newest, or the newest again. It comes
    /// from the process that holds the snapshot, if that can be reached.
    ///
    /// # Errors
    /// [`FaultCode::SnapshotGone`] if no process that is reached holds it for this device, [`FaultCode::ForeignClient`],
    /// [`FaultCode::EpochChanged`], [`FaultCode::TooLarge`] for too many ids, [`FaultCode::Unavailable`].
    pub async fn snapshot(&self, principal: &Principal, request: SnapshotRequest) -> Result<SnapshotChunk, Fault> {
        let holder = request.resume.map(|position| ProcessId::holding(position.snapshot_id));
        let others = self.inner.others.get().filter(|others| others.are_reachable());
        match (holder.filter(|holder| *holder != self.process_id()), others) {
            (Some(holder), Some(others)) => others.snapshot(holder, &principal.user_id, &request).await,
            _ => self.own_snapshot(principal, request).await,
        }
    }

    async fn own_snapshot(&self, principal: &Principal, request: SnapshotRequest) -> Result<SnapshotChunk, Fault> {
        let (inner, user_id) = (Arc::clone(&self.inner), principal.user_id.clone());
        let chunk = request.resume.map_or(0, |position| position.chunk);
        let span = tracing::info_span!("snapshot.chunk", client_id = %request.client_id, chunk);
        // A caller may give up at any moment; a chunk that was begun is read to its end and kept.
        let reading = async move { inner.snapshots.chunk(&inner.pool, &user_id, &request).await };
        let read = tokio::spawn(reading.instrument(span)).await.map_err(|error| {
            tracing::error!(%error, "reading a snapshot broke");
            Fault::new(FaultCode::Unavailable, "the server failed to read the snapshot")
        })?;
        read.inspect(|_| METRICS.snapshot_chunks.increment(1)).map_err(|error| fault_of("snapshot", error))
    }

    /// The digests of the rows of the user's audiences.
    ///
    /// # Errors
    /// [`FaultCode::ForeignClient`], [`FaultCode::EpochChanged`], [`FaultCode::Unavailable`].
    pub async fn digest(&self, principal: &Principal, request: DigestRequest) -> Result<DigestReply, Fault> {
        let digest = self.inner.snapshots.digest(&principal.user_id, &request).await;
        digest.map_err(|error| fault_of("digest", error))
    }

    /// Decides the fate of one batch. Sending it again has no further effect and gives the same answer.
    pub async fn upload(&self, principal: &Principal, batch: UploadBatch) -> Outcome {
        let span = tracing::info_span!(
            "ingest",
            batch_id = %batch.batch_id,
            client_id = %batch.client_id,
            records = batch.records.len(),
            outcome = tracing::field::Empty,
        );
        telemetry::follow(&span, &batch);
        let begun = Instant::now();
        let outcome = self.inner.ingest.upload(&principal.user_id, batch).instrument(span.clone()).await;
        span.record("outcome", outcome_word(&outcome));
        METRICS.uploaded(&outcome, begun.elapsed());
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.inner.committed.send_modify(|count| *count += 1);
        }
        outcome
    }

    /// The user's audiences now.
    ///
    /// # Errors
    /// [`FaultCode::Unavailable`].
    pub async fn audiences_of(&self, user_id: &UserId) -> Result<BTreeSet<AudienceKey>, Fault> {
        let mut conn = self.inner.pool.acquire().await.map_err(|error| unavailable("audiences", &error))?;
        audiences_of(&mut conn, user_id).await.map_err(|error| unavailable("audiences", &error))
    }

    /// The audiences of several users now.
    ///
    /// # Errors
    /// [`FaultCode::Unavailable`].
    pub(crate) async fn audiences_of_all<'u>(
        &self,
        users: &BTreeSet<&'u UserId>,
    ) -> Result<BTreeMap<&'u UserId, BTreeSet<AudienceKey>>, Fault> {
        let mut conn = self.inner.pool.acquire().await.map_err(|error| unavailable("audiences", &error))?;
        audiences_of_all(&mut conn, users).await.map_err(|error| unavailable("audiences", &error))
    }

    /// From now on [`Self::ready`] says no, so that whoever spreads requests asks another process. What comes is served.
    pub fn leave(&self) {
        self.inner.leaving.store(true, Ordering::Relaxed);
    }

    /// Whether requests should come here: Postgres answers within two seconds, and the process does not stop.
    pub async fn ready(&self) -> bool {
        if self.inner.leaving.load(Ordering::Relaxed) {
            return false;
        }
        let asked = pg::query("/* ready */ SELECT 1").execute(&self.inner.pool);
        matches!(timeout(READY_WITHIN, asked).await, Ok(Ok(_)))
    }
}

fn fault_of(hop: &'static str, error: ReadError) -> Fault {
    match error {
        ReadError::Fault(fault) => fault,
        ReadError::Database(error) => unavailable(hop, &error),
    }
}
