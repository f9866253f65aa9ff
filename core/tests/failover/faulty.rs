//! A carrier that works, or fails in one of the ways in which carriers fail; it counts the calls that it gets.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::memory::MemoryNetwork;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::wire::{
    DigestReply, DigestRequest, Fault, FaultCode, FetchPage, FetchRequest, Outcome, Session, SessionRequest,
    SnapshotChunk, SnapshotRequest, UploadBatch,
};
use tokio::time::sleep;

/// How long a call hangs.
pub(crate) const HANGS_FOR: Duration = Duration::from_secs(5);
const SLOW: Duration = Duration::from_millis(800);

/// How calls go.
#[derive(Debug, Clone)]
pub(crate) enum Mode {
    Up,
    /// Calls fail at once.
    Fail(NetworkError),
    /// Calls do not reach the server, and nobody says so.
    Hang,
    /// Calls reach the server, and the answer never comes.
    LoseAnswers,
    /// The server does not believe the token.
    RefuseAuth,
    /// Calls take long, but not too long.
    Slow,
    /// So do they here, and each waits for the one before: a connection that is made anew lets nobody call meanwhile.
    OneByOne,
}

#[derive(Debug)]
pub(crate) struct Faulty {
    /// What is pushed and whether it is connected is its own affair.
    pub(crate) inner: MemoryNetwork,
    carrier: Carrier,
    /// Pushes, and knows whether it is connected.
    live: bool,
    calls: AtomicU32,
    mode: Mutex<Mode>,
    turn: tokio::sync::Mutex<()>,
}

impl Faulty {
    /// One that pushes, and says when it is not connected.
    pub(crate) fn live(inner: MemoryNetwork, carrier: Carrier) -> Arc<Self> {
        Arc::new(Self {
            inner,
            carrier,
            live: true,
            calls: AtomicU32::new(0),
            mode: Mutex::new(Mode::Up),
            turn: Default::default(),
        })
    }

    /// One that is polled, and finds out by its calls only.
    pub(crate) fn polled(inner: MemoryNetwork) -> Arc<Self> {
        let carrier = Carrier::Http;
        Arc::new(Self {
            inner,
            carrier,
            live: false,
            calls: AtomicU32::new(0),
            mode: Mutex::new(Mode::Up),
            turn: Default::default(),
        })
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.mode.lock().expect("not poisoned") = mode;
    }

    pub(crate) fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn meet<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, NetworkError>>,
    ) -> Result<T, NetworkError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mode = self.mode.lock().expect("not poisoned").clone();
        let after_ms = u64::try_from(HANGS_FOR.as_millis()).expect("short");
        let timeout = NetworkError::Timeout { carrier: self.carrier, call, after_ms };
        match mode {
            Mode::Up => answer.await,
            Mode::Fail(error) => Err(error),
            Mode::Hang => {
                sleep(HANGS_FOR).await;
                Err(timeout)
            }
            Mode::LoseAnswers => {
                let _lost = answer.await;
                sleep(HANGS_FOR).await;
                Err(timeout)
            }
            Mode::RefuseAuth => Err(Fault::new(FaultCode::Unauthenticated, "expired").into()),
            Mode::Slow => {
                sleep(SLOW).await;
                answer.await
            }
            Mode::OneByOne => {
                let _turn = self.turn.lock().await;
                sleep(SLOW).await;
                answer.await
            }
        }
    }
}

#[async_trait]
impl Network for Faulty {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.meet("session", self.inner.session(request)).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.meet("fetch", self.inner.fetch(request)).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.meet("upload", self.inner.upload(batch)).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.meet("snapshot", self.inner.snapshot(request)).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.meet("digest", self.inner.digest(request)).await
    }

    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        if !self.live {
            return Ok(None);
        }
        self.meet("subscribe", self.inner.subscribe(audiences)).await
    }

    fn carrier(&self) -> Carrier {
        if self.live && self.inner.carrier() == Carrier::Offline { Carrier::Offline } else { self.carrier }
    }
}
