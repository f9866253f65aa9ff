//! The driver: the one task that talks to the network for a client.
//!
//! Place in the journey: event → engine → database → next message, in that order. It is the single flight: one pass at
//! a time, and requests that come meanwhile share the next. While an upload is under way nothing is integrated, so its
//! outcome meets the history that it was made of.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream::{BoxStream, pending};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use super::backoff::Backoff;
use super::{Connection, Shared, SyncError, SyncRequest};
use crate::engine::{Concluded, EngineError, Progress, Received};
use crate::model::{AudienceKey, BatchId};
use crate::network::{Ingress, Network, NetworkError};
use crate::wire::{Fault, FaultCode, SessionRequest};

/// How soon a change of carrier is noticed. Looking costs no message.
const CARRIER_LOOK: Duration = Duration::from_millis(250);

/// The wall clock, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Syncs until it is aborted. Every failure is shown in the status and tried again.
pub(super) async fn run(shared: Arc<Shared>, network: Arc<dyn Network>, requests: mpsc::Receiver<SyncRequest>) {
    let mut backoff = Backoff::new(shared.timing.retry_first, shared.timing.retry_max);
    let mut driver = Driver { shared, network, requests, waiting: Vec::new() };
    loop {
        driver.shared.status.send_modify(|status| status.connection = Connection::Connecting);
        let Err(error) = driver.session(&mut backoff).await else { continue };
        tracing::debug!(error = %error, "sync pass failed");
        for request in driver.waiting.drain(..) {
            let _asker_left = request.send(Err(error.clone()));
        }
        driver.shared.status.send_modify(|status| status.connection = Connection::Failed { error });
        driver.pause(backoff.next()).await;
    }
}

struct Driver {
    shared: Arc<Shared>,
    network: Arc<dyn Network>,
    requests: mpsc::Receiver<SyncRequest>,
    /// Who waits for the pass that runs now.
    waiting: Vec<SyncRequest>,
}

/// Why a session's loop woke.
enum Woken {
    Ingress(Option<Ingress>),
    Work,
    Look,
}

impl Driver {
    /// One session: who are we, what is new, then live until something breaks or the audiences change.
    async fn session(&mut self, backoff: &mut Backoff) -> Result<(), SyncError> {
        let request = SessionRequest { client_id: self.shared.client_id };
        let session = self.network.session(&request).await?;
        let audiences: BTreeSet<AudienceKey> =
            session.audiences.iter().map(|audience| audience.audience_key.clone()).collect();
        let committed = self.step(move |engine| engine.begin_session(&session, now_ms())).await?;
        self.shared.publish(committed);
        self.bootstrap().await?;
        let mut ingress = self.subscribe(&audiences).await?;
        let mut look_at = None;
        self.fetch(&audiences).await?;
        loop {
            self.upload(&audiences).await?;
            self.pass_done().await?;
            backoff.reset();
            let due = look_at.take().unwrap_or_else(|| Instant::now() + self.interval());
            let woken = tokio::select! {
                event = ingress.next() => Woken::Ingress(event),
                () = self.shared.work.notified() => Woken::Work,
                Some(request) = self.requests.recv() => {
                    self.waiting.push(request);
                    Woken::Look
                }
                () = sleep_until(due) => Woken::Look,
                () = carrier_changes(&*self.network) => Woken::Look,
            };
            let same = match woken {
                Woken::Work => true,
                Woken::Look | Woken::Ingress(Some(Ingress::Wakeup)) => self.fetch(&audiences).await?,
                Woken::Ingress(None) => return Ok(()),
                Woken::Ingress(Some(Ingress::Slice(slice))) => {
                    match self.step(move |engine| engine.receive(slice)).await? {
                        Received::Integrated(committed) => {
                            self.shared.publish(committed);
                            true
                        }
                        Received::Known => true,
                        Received::Waiting => {
                            look_at = Some(Instant::now() + self.shared.timing.slice_wait);
                            true
                        }
                        Received::Gap => self.fetch(&audiences).await?,
                    }
                }
            };
            if !same {
                return Ok(());
            }
        }
    }

    /// Live events; a network that cannot push now is polled.
    async fn subscribe(&self, audiences: &BTreeSet<AudienceKey>) -> Result<BoxStream<'static, Ingress>, SyncError> {
        let audiences: Vec<AudienceKey> = audiences.iter().cloned().collect();
        match self.network.subscribe(&audiences).await {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) | Err(NetworkError::Unavailable { .. } | NetworkError::Timeout { .. }) => Ok(pending().boxed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fetches and integrates until nothing more follows; false if the user's audiences are others than `audiences`.
    async fn fetch(&self, audiences: &BTreeSet<AudienceKey>) -> Result<bool, SyncError> {
        loop {
            let request = self.step(|engine| engine.fetch_request()).await?;
            let page = self.network.fetch(&request).await?;
            let more = page.more;
            let same = page.cursors.keys().eq(audiences.iter());
            let committed = self.step(move |engine| engine.integrate_page(page)).await?;
            self.shared.publish(committed);
            if !same {
                return Ok(false);
            }
            // What fell beneath a floor comes by a snapshot, and what came after that by another page.
            if !more && !self.bootstrap().await? {
                return Ok(true);
            }
        }
    }

    /// Uploads until nothing is pending.
    async fn upload(&self, audiences: &BTreeSet<AudienceKey>) -> Result<(), SyncError> {
        let timing = self.shared.timing;
        let mut behind = Backoff::new(timing.retry_first / 4, timing.retry_max);
        let mut restamped = false;
        loop {
            let batch_id = BatchId::from_uuid(Uuid::now_v7());
            let Some(sent) = self.step(move |engine| engine.next_batch(batch_id)).await? else { return Ok(()) };
            let outcome = self.network.upload(&sent.batch).await?;
            let concluded = {
                let outcome = outcome.clone();
                self.step(move |engine| engine.conclude(&sent, &outcome, now_ms())).await?
            };
            match concluded {
                Concluded::Settled(committed) => {
                    self.shared.publish(committed);
                    self.shared.refresh_status().await?;
                }
                Concluded::Fetch => {
                    // The first retry is at once: only contention makes devices wait for each other.
                    self.fetch(audiences).await?;
                    sleep(behind.next()).await;
                }
                Concluded::Restamped(committed) if !restamped => {
                    restamped = true;
                    self.shared.publish(committed);
                }
                Concluded::Snapshot => {
                    self.fetch(audiences).await?;
                }
                Concluded::Restamped(_) | Concluded::Later => return Err(SyncError::NotTaken { outcome }),
            }
        }
    }

    /// Takes snapshots until no audience waits for one; false if none did.
    async fn bootstrap(&self) -> Result<bool, SyncError> {
        let mut taken = false;
        while let Some(request) = self.step(|engine| engine.snapshot_request()).await? {
            let chunk = match self.network.snapshot(&request).await {
                Ok(chunk) => chunk,
                Err(NetworkError::Fault(Fault { code: FaultCode::SnapshotGone, .. })) => {
                    self.step(|engine| engine.abandon_snapshot()).await?;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if let Progress::Done(committed) = self.step(move |engine| engine.take_chunk(&chunk)).await? {
                self.shared.publish(committed);
                taken = true;
            }
        }
        Ok(taken)
    }

    async fn pass_done(&mut self) -> Result<(), SyncError> {
        self.shared.refresh_status().await?;
        let carrier = self.network.carrier();
        self.shared.status.send_modify(|status| {
            status.connection = Connection::Online { carrier };
            status.last_sync_ms = Some(now_ms());
        });
        for request in self.waiting.drain(..) {
            let _asker_left = request.send(Ok(()));
        }
        Ok(())
    }

    /// When to look by itself: rarely while changes are pushed, often while they are not. Jittered by a quarter.
    fn interval(&self) -> Duration {
        let timing = &self.shared.timing;
        let mean = if self.network.carrier().is_live() { timing.head_check } else { timing.poll };
        mean.mul_f64(rand::rng().random_range(0.75..1.25))
    }

    /// Waits out a failure; a request of the app ends the wait.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            Some(request) = self.requests.recv() => self.waiting.push(request),
        }
    }

    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut crate::engine::Engine<crate::store::SqliteStore>) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, SyncError> {
        self.shared.blocking(move |engine| step(engine).map_err(SyncError::from)).await
    }
}

/// Waits until something else carries messages: what was pushed meanwhile may be missing here.
async fn carrier_changes(network: &dyn Network) {
    let before = network.carrier();
    while network.carrier() == before {
        sleep(CARRIER_LOOK).await;
    }
}
