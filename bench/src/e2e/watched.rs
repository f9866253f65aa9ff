//! A network whose calls are counted, and whose accepted uploads are kept.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::{Carrier, CarrierReason, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};

/// Calls of all networks that share it.
#[derive(Debug, Default)]
pub(super) struct Calls {
    now: AtomicU32,
    peak: AtomicU32,
    all: AtomicU32,
}

impl Calls {
    /// Forgets what was, but for what is still under way.
    pub(super) fn begin(&self) {
        self.peak.store(self.now.load(Ordering::Relaxed), Ordering::Relaxed);
        self.all.store(0, Ordering::Relaxed);
    }

    /// The most that were under way at once, and how many there were.
    pub(super) fn told(&self) -> (u32, u32) {
        (self.peak.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed))
    }

    fn enter(&self) -> Inside<'_> {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.peak.fetch_max(now, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        Inside(self)
    }
}

/// A call under way, also one that is given up.
struct Inside<'a>(&'a Calls);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Passes everything on, and looks at it.
#[derive(Debug)]
pub(super) struct Watched<N> {
    inner: N,
    calls: Arc<Calls>,
    accepted: Mutex<Vec<UploadBatch>>,
}

impl<N> Watched<N> {
    pub(super) fn new(inner: N, calls: Arc<Calls>) -> Self {
        Self { inner, calls, accepted: Mutex::default() }
    }

    /// The batches that the server has accepted since this was asked last.
    pub(super) fn take_accepted(&self) -> Vec<UploadBatch> {
        std::mem::take(&mut *self.accepted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl<N: Network> Network for Watched<N> {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        let _inside = self.calls.enter();
        self.inner.session(request).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        let _inside = self.calls.enter();
        self.inner.fetch(request).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        let _inside = self.calls.enter();
        let outcome = self.inner.upload(batch).await?;
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.accepted.lock().unwrap_or_else(PoisonError::into_inner).push(batch.clone());
        }
        Ok(outcome)
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        let _inside = self.calls.enter();
        self.inner.snapshot(request).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        let _inside = self.calls.enter();
        self.inner.digest(request).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        self.inner.subscribe(audiences).await
    }

    fn carrier(&self) -> Carrier {
        self.inner.carrier()
    }

    fn reason(&self) -> CarrierReason {
        self.inner.reason()
    }

    fn is_pushing(&self) -> bool {
        self.inner.is_pushing()
    }
}
