//! What a driver says to the server, and what the engine makes of the answers: session, fetch, snapshot; and what upload
//! ([`super::upload`]) shares with them.
//!
//! Place in the journey: between engine and network, one message at a time. Whatever a step commits is told within the
//! step, so a driver may be stopped at every wait.
//!
//! # Invariants
//! - No answer makes it spin: what leads nowhere is an error, and what is asked again unchanged is asked after a wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::backoff::Backoff;
use super::driver::now_ms;
use super::leadership::Leadership;
use super::patience::Patience;
use super::shared::Shared;
use super::{Progress, Status, SyncError};
use crate::engine::{self, Due, Engine, EngineError, Received};
use crate::model::{AudienceKey, Cursors};
use crate::network::{Network, NetworkError};
use crate::store::SqliteStore;
use crate::wire::{Fault, FaultCode, FetchPage, Session, SessionRequest, Slice, SnapshotChunk};

/// So many pages are integrated in one step at most. The server bounds the bytes of each: this bounds what is in memory.
const PAGES_TOGETHER_MAX: usize = 16;
/// A step of this many records is not made larger: the app's own actions wait for its end.
const RECORDS_TOGETHER_MAX: usize = 10_000;

/// Why fetching stopped.
enum Ended {
    /// The step is large enough.
    Full,
    /// Nothing more follows.
    AtHead,
    /// The user's audiences are others now.
    OtherAudiences,
    Failed(SyncError),
}

/// One driver's way to the server, and to the engine.
pub(super) struct Exchange {
    pub(super) shared: Arc<Shared>,
    pub(super) network: Arc<dyn Network>,
    pub(super) leadership: Arc<Leadership>,
}

impl Exchange {
    /// Asks who the user is; returns the audiences that it is in.
    pub(super) async fn session(&self) -> Result<BTreeSet<AudienceKey>, SyncError> {
        let request = SessionRequest { client_id: self.step(|engine| engine.client_id()).await? };
        let session = self.patiently(|| self.network.session(&request)).await?;
        let audiences = session.audiences.iter().map(|audience| audience.audience_key.clone()).collect();
        self.begin(session).await?;
        Ok(audiences)
    }

    async fn begin(&self, session: Session) -> Result<(), SyncError> {
        let shared = Arc::clone(&self.shared);
        self.step(move |engine| {
            shared.publish(engine.begin_session(&session, now_ms())?);
            shared.count(engine)
        })
        .await
    }

    /// Takes a live slice; tells what is due then, too.
    pub(super) async fn receive(&self, slice: Slice) -> Result<(Received, Due), SyncError> {
        let shared = Arc::clone(&self.shared);
        self.step(move |engine| {
            let received = engine.receive(slice)?;
            if let Received::Integrated(committed) = &received {
                shared.publish(committed.clone());
                shared.count(engine)?;
            }
            Ok((received, engine.due()?))
        })
        .await
    }

    /// Fetches and integrates until nothing more follows; false if the user's audiences are others than `audiences`.
    pub(super) async fn fetch(&self, audiences: &BTreeSet<AudienceKey>) -> Result<bool, SyncError> {
        loop {
            let (pages, ended) = self.gather(audiences).await?;
            // What came before an error is progress that the next try need not make again.
            if !pages.is_empty() {
                let shared = Arc::clone(&self.shared);
                self.step(move |engine| {
                    shared.publish(engine.integrate_pages(pages)?);
                    shared.count(engine)
                })
                .await?;
            }
            match ended {
                Ended::Full => {}
                Ended::OtherAudiences => return Ok(false),
                Ended::Failed(error) => return Err(error),
                // What fell beneath a floor comes by a snapshot, and what came after that by another page.
                Ended::AtHead => {
                    if !self.bootstrap().await? {
                        return Ok(true);
                    }
                }
            }
        }
    }

    /// Fetches the pages that are to be integrated in one step, and tells why no further one is among them.
    ///
    /// While something is pending, each step takes it back and runs it again, so many pages make one step. Otherwise each
    /// page is a step, and the app's own actions wait for no more than that.
    async fn gather(&self, audiences: &BTreeSet<AudienceKey>) -> Result<(Vec<FetchPage>, Ended), SyncError> {
        let (mut request, pending) = self.step(|engine| Ok((engine.fetch_request()?, engine.pending_count()?))).await?;
        let pages_max = if pending == 0 { 1 } else { PAGES_TOGETHER_MAX };
        let mut pages = Vec::new();
        let mut records = 0;
        let ended = loop {
            let page = match self.patiently(|| self.network.fetch(&request)).await {
                Ok(page) => page,
                Err(error) => break Ended::Failed(error.into()),
            };
            if page.epoch != request.epoch {
                let changed = EngineError::EpochChanged { expected: request.epoch, actual: page.epoch };
                break Ended::Failed(changed.into());
            }
            let more = page.more;
            let same = page.cursors.keys().eq(audiences.iter());
            let moved = advance(&mut request.cursors, &page.cursors);
            if more && !moved {
                break Ended::Failed(SyncError::NoProgress);
            }
            records += page.records.len();
            pages.push(page);
            if !same {
                break Ended::OtherAudiences;
            } else if !more {
                break Ended::AtHead;
            } else if pages.len() >= pages_max || records >= RECORDS_TOGETHER_MAX {
                break Ended::Full;
            }
        };
        Ok((pages, ended))
    }

    /// Takes snapshots until no audience waits for one; false if none did.
    pub(super) async fn bootstrap(&self) -> Result<bool, SyncError> {
        let mut taken = false;
        let mut again = self.soon_again();
        let mut asked = None;
        let mut replaced = None;
        let (mut furthest, mut losing) = (0, self.patience());
        while let Some(request) = self.step(|engine| engine.snapshot_request()).await? {
            if replaced.take().is_some_and(|audiences: Vec<AudienceKey>| audiences == request.audiences) {
                // A whole snapshot came without them: only a new session says whether the user is still in them.
                return Err(SyncError::NoProgress);
            }
            if asked.as_ref() == Some(&request) {
                sleep(again.next()).await;
            }
            match self.patiently(|| self.network.snapshot(&request)).await {
                Ok(chunk) => {
                    let reached = chunk.position.chunk.saturating_add(1);
                    if reached > furthest {
                        furthest = reached;
                        losing.reset();
                    }
                    if self.take(chunk).await? {
                        taken = true;
                        replaced = Some(request.audiences.clone());
                    }
                }
                Err(NetworkError::Fault(Fault { code: FaultCode::SnapshotGone, .. })) => {
                    self.step(|engine| engine.abandon_snapshot()).await?;
                    // Whoever loses this one may lose the next one too.
                    sleep(losing.wait(Duration::ZERO).ok_or(SyncError::SnapshotLost)?).await;
                }
                Err(error) => return Err(error.into()),
            }
            asked = Some(request);
        }
        Ok(taken)
    }

    /// Takes a chunk of a snapshot; true with its last one.
    async fn take(&self, chunk: SnapshotChunk) -> Result<bool, SyncError> {
        let shared = Arc::clone(&self.shared);
        let step = self.step(move |engine| {
            Ok(match engine.take_chunk(&chunk)? {
                engine::Progress::Loading { rows_done, rows_total } => Some(Progress { rows_done, rows_total }),
                engine::Progress::Done(committed) => {
                    shared.publish(committed);
                    shared.count(engine)?;
                    None
                }
            })
        });
        let bootstrap = step.await?;
        self.note(|status| std::mem::replace(&mut status.bootstrap, bootstrap) != bootstrap);
        Ok(bootstrap.is_none())
    }

    /// Lets what waits for the server's schema be tried again.
    pub(super) async fn retry_held(&self) -> Result<(), SyncError> {
        let shared = Arc::clone(&self.shared);
        self.step(move |engine| {
            engine.retry_held();
            shared.count(engine)
        })
        .await
    }

    /// Makes a call, again while the server says that it is busy.
    async fn patiently<T, A>(&self, call: impl Fn() -> A) -> Result<T, NetworkError>
    where
        A: Future<Output = Result<T, NetworkError>>,
    {
        let mut patience = self.patience();
        loop {
            let answer = call().await;
            match &answer {
                Err(NetworkError::Fault(Fault { code: FaultCode::Unavailable, .. })) => {}
                _ => return answer,
            }
            let Some(wait) = patience.wait(Duration::ZERO) else { return answer };
            sleep(wait).await;
        }
    }

    pub(super) fn patience(&self) -> Patience {
        let timing = &self.shared.timing;
        Patience::new(Backoff::new(timing.retry_first, timing.retry_max), timing.patience)
    }

    pub(super) fn soon_again(&self) -> Backoff {
        Backoff::new(self.shared.timing.retry_first / 4, self.shared.timing.retry_max)
    }

    /// Changes the status, unless this driver was stopped: then another, or the app, has the say.
    pub(super) fn note(&self, change: impl FnOnce(&mut Status) -> bool) {
        self.shared.status.send_if_modified(|status| !self.leadership.is_resigned() && change(status));
    }

    /// Runs a step of the engine.
    pub(super) async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Engine<SqliteStore>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, SyncError> {
        self.shared.blocking(move |engine| step(engine).map_err(SyncError::from)).await
    }
}

/// Moves cursors to where a page leads; whether it leads on.
fn advance(cursors: &mut Cursors, reached: &Cursors) -> bool {
    let mut moved = false;
    for (audience, reached) in reached {
        let cursor = cursors.entry(audience.clone()).or_default();
        moved |= *reached > *cursor;
        *cursor = (*cursor).max(*reached);
    }
    moved
}
