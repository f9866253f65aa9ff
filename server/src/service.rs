//! The server's core: what a transport can ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx_postgres::{PgPool, PgPoolOptions};
use synchrotron_core::model::{AudienceKey, UserId};
use synchrotron_core::wire::{
    Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest, Slice, UploadBatch,
};
use tokio::sync::watch;

use crate::StartError;
use crate::auth::Principal;
use crate::settings::Settings;

/// Names one slice that waits to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboxId(pub(crate) i64);

/// The server's core, shared by all transports of a process.
#[derive(Clone, Debug)]
pub struct Service {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    pool: PgPool,
    settings: Settings,
    committed: watch::Sender<u64>,
}

impl Service {
    /// Connects, brings the schema up to date and reads the tracked tables' catalogue.
    ///
    /// # Errors
    /// [`StartError`], naming what is missing or unsafe.
    pub async fn connect(settings: &Settings) -> Result<Self, StartError> {
        settings.validate()?;
        let pool = PgPoolOptions::new()
            .max_connections(settings.pool_connections_max)
            .connect(settings.database_url.as_str())
            .await
            .map_err(StartError::doing("connect"))?;
        let inner = Inner { pool, settings: settings.clone(), committed: watch::Sender::new(0) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it was started with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Opens a session: binds the device to the user and tells the user's audiences with their heads.
    ///
    /// # Errors
    /// [`FaultCode::ForeignClient`], [`FaultCode::Unavailable`].
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn session(&self, _principal: &Principal, _request: SessionRequest) -> Result<Session, Fault> {
        Err(Fault::new(FaultCode::Unavailable, "not served yet"))
    }

    /// One page of the records after the request's cursors.
    ///
    /// # Errors
    /// [`FaultCode::ForeignClient`], [`FaultCode::EpochChanged`], [`FaultCode::Unavailable`].
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn fetch(&self, _principal: &Principal, _request: FetchRequest) -> Result<FetchPage, Fault> {
        Err(Fault::new(FaultCode::Unavailable, "not served yet"))
    }

    /// Decides the fate of one batch. Sending it again has no further effect and gives the same answer.
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn upload(&self, _principal: &Principal, _batch: UploadBatch) -> Outcome {
        Outcome::Retry { after_ms: 1_000 }
    }

    /// The oldest slices that are committed and not yet marked as published, of any process.
    ///
    /// # Errors
    /// [`FaultCode::Unavailable`].
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn unpublished_slices(&self, _limit: usize) -> Result<Vec<(OutboxId, Slice)>, Fault> {
        Ok(Vec::new())
    }

    /// Forgets slices that a carrier has taken.
    ///
    /// # Errors
    /// [`FaultCode::Unavailable`].
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn mark_published(&self, _ids: &[OutboxId]) -> Result<(), Fault> {
        Ok(())
    }

    /// Counts this process's commits: changes after each, so that a publisher can act at once.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.inner.committed.subscribe()
    }

    /// The user's audiences now.
    ///
    /// # Errors
    /// [`FaultCode::Unavailable`].
    #[expect(clippy::unused_async, reason = "signature first")]
    pub async fn audiences_of(&self, _user_id: &UserId) -> Result<BTreeSet<AudienceKey>, Fault> {
        Ok(BTreeSet::new())
    }

    /// Whether Postgres answers.
    pub async fn ready(&self) -> bool {
        sqlx_core::query::query::<sqlx_postgres::Postgres>("/* ready */ SELECT 1")
            .execute(&self.inner.pool)
            .await
            .is_ok()
    }
}
