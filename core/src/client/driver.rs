//! The driver: the one task that talks to the network for a client.
//!
//! Place in the journey: event → engine → database → next message, in that order. It is the single flight: one pass at
//! a time, and requests that come meanwhile share the next. While an upload is under way nothing is integrated, so its
//! outcome meets the history that it was made of. Of several processes on one database, one driver leads and syncs; the
//! others follow.
//!
//! # Invariants
//! - Every request is answered by a pass that began after it, or by that pass's failure.
//! - Whatever ends a session, an error, a panic, a stream that closes, the next one begins by itself, after a wait that
//!   grows unless the session was sound for a while. So nothing that the network does makes it spin.
//! - It may be stopped at every wait: no lock, no transaction and no event of the change feed hangs on its going on.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::stream::{BoxStream, pending};
use futures::{FutureExt, StreamExt};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::carrier::{carrying, carrying_changes};
use super::exchange::Exchange;
use super::leadership::Leadership;
use super::shared::Shared;
use super::slot::SyncRequest;
use super::upload::Uploaded;
use super::{Connection, FailedPass, SyncError};
use crate::engine::{EngineError, Received};
use crate::model::AudienceKey;
use crate::network::{Carrier, Ingress, Network};
use crate::store::StoreError;

/// A session that was in step with the server for so long ends a series of failures.
const SOUND_AFTER: Duration = Duration::from_secs(1);
/// The first wait for the lead: a client that was closed just now may still be giving it up.
const TAKEOVER_FIRST: Duration = Duration::from_millis(20);

/// The wall clock, in milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Syncs until it is aborted, once it leads. Every failure is shown in the status and tried again.
pub(super) async fn run(
    shared: Arc<Shared>,
    network: Arc<dyn Network>,
    requests: mpsc::UnboundedReceiver<SyncRequest>,
    leadership: Arc<Leadership>,
) {
    let mut backoff = Backoff::new(shared.timing.retry_first, shared.timing.retry_max);
    // However this ends, with the runtime too, the next process may lead.
    let _resigns = Resigning(Arc::clone(&leadership));
    let exchange = Exchange { shared, network, leadership };
    let mut driver =
        Driver { exchange, requests, waiting: Vec::new(), online_since: None, carried: None, retry_held: None };
    driver.lead().await;
    loop {
        driver.show(Connection::Connecting);
        (driver.online_since, driver.retry_held) = (None, None);
        // A session keeps nothing in memory that a panic could leave half done: the next begins afresh.
        let ended = AssertUnwindSafe(driver.session()).catch_unwind().await;
        if let Err(error) = ended.unwrap_or(Err(SyncError::Interrupted { panicked: true })) {
            tracing::debug!(error = %error, "sync pass failed");
            let signed_out = is_signed_out(&error);
            driver.fail(error);
            if signed_out {
                // This client has no work any more, and the next user's may lead.
                return;
            }
        }
        if driver.online_since.is_some_and(|since| since.elapsed() >= SOUND_AFTER) {
            backoff.reset();
        }
        driver.pause(backoff.next()).await;
    }
}

/// Whether this database is another user's by now, or nobody's.
fn is_signed_out(error: &SyncError) -> bool {
    matches!(error, SyncError::Engine(EngineError::SignedOut | EngineError::Store(StoreError::ForeignUser { .. })))
}

/// Gives the lead up when the driver's task ends.
struct Resigning(Arc<Leadership>);

impl Drop for Resigning {
    fn drop(&mut self) {
        self.0.resign();
    }
}

struct Driver {
    exchange: Exchange,
    requests: mpsc::UnboundedReceiver<SyncRequest>,
    /// Who waits for the pass that runs now, or comes next.
    waiting: Vec<SyncRequest>,
    /// Since when this session is in step with the server.
    online_since: Option<Instant>,
    /// What carried the newest pass, and since when, in milliseconds since 1970.
    carried: Option<(Carrier, i64)>,
    /// When what waits for the server's schema is tried again, if anything does.
    retry_held: Option<Instant>,
}

/// Why a session's loop woke.
enum Woken {
    Ingress(Option<Ingress>),
    Work,
    /// The server may have migrated.
    RetryHeld,
    Look,
}

/// What a session does next.
enum Next {
    Upload,
    /// Nothing waits to be uploaded: the database need not be asked for a batch.
    Wait,
    End,
}

impl Driver {
    /// Waits until this driver is the one that syncs the database.
    async fn lead(&mut self) {
        let mut wait = Backoff::new(TAKEOVER_FIRST, self.exchange.shared.timing.takeover);
        loop {
            match self.exchange.leadership.try_take() {
                Ok(true) => return,
                Ok(false) => {
                    self.show(Connection::Following);
                    self.take_requests();
                    self.answer(&Err(SyncError::Following));
                }
                Err(kind) => self.fail(SyncError::Lock { kind }),
            }
            self.pause(wait.next()).await;
        }
    }

    /// One session: who are we, what is new, then live until something breaks or the audiences change.
    async fn session(&mut self) -> Result<(), SyncError> {
        let exchange = &self.exchange;
        let audiences = exchange.session().await?;
        exchange.bootstrap().await?;
        let mut carrying = carrying(&*exchange.network);
        let mut ingress = self.subscribe(&audiences).await?;
        // Nothing but a look puts the next one off: what is pushed says nothing of what is missing.
        let mut due = Instant::now();
        self.take_requests();
        let mut next = self.look(&audiences, &mut due).await?;
        let mut patience = self.exchange.patience();
        // While the server is busy, uploads wait until then; what others do is received all the same.
        let mut put_off: Option<Instant> = None;
        loop {
            let may_upload = put_off.is_none_or(|until| until <= Instant::now());
            match next {
                Next::Upload if may_upload => {
                    put_off = match self.exchange.upload(&audiences).await? {
                        Uploaded::All => None,
                        Uploaded::OtherAudiences => return Ok(()),
                        Uploaded::PutOff { after, outcome } => match patience.wait(after) {
                            Some(wait) => Some(Instant::now() + wait),
                            None => return Err(SyncError::NotTaken { outcome }),
                        },
                    }
                }
                Next::Upload | Next::Wait => {}
                Next::End => return Ok(()),
            }
            if put_off.is_none() {
                patience.reset();
                self.pass_done();
            }
            let woken = tokio::select! {
                event = ingress.next() => Woken::Ingress(event),
                () = self.exchange.shared.work.notified() => Woken::Work,
                Some(request) = self.requests.recv() => {
                    self.waiting.push(request);
                    Woken::Look
                }
                () = sleep_until(due) => Woken::Look,
                () = sleep_until(put_off.unwrap_or(due)), if put_off.is_some() => Woken::Work,
                () = sleep_until(self.retry_held.unwrap_or(due)), if self.retry_held.is_some() => Woken::RetryHeld,
                now = carrying_changes(&*self.exchange.network, carrying) => {
                    if now.0 != carrying.0 {
                        // All who lose a carrier lose it at once, and the next one is to bear them all.
                        due = due.min(Instant::now() + self.spread());
                    }
                    carrying = now;
                    Woken::Work
                }
            };
            next = self.attend(woken, &audiences, &mut due).await?;
        }
    }

    /// Receives what woke it.
    async fn attend(
        &mut self,
        woken: Woken,
        audiences: &BTreeSet<AudienceKey>,
        due: &mut Instant,
    ) -> Result<Next, SyncError> {
        match woken {
            Woken::Work => Ok(Next::Upload),
            Woken::RetryHeld => {
                self.retry_held = None;
                self.exchange.retry_held().await?;
                Ok(Next::Upload)
            }
            Woken::Look | Woken::Ingress(Some(Ingress::Wakeup)) => {
                self.take_requests();
                if !self.waiting.is_empty() && self.retry_held.take().is_some() {
                    self.exchange.retry_held().await?;
                }
                self.look(audiences, due).await
            }
            Woken::Ingress(None) => Ok(Next::End),
            Woken::Ingress(Some(Ingress::Slice(slice))) => {
                let (received, now_due) = self.exchange.receive(slice).await?;
                if now_due.snapshot || received == Received::Gap {
                    return self.look(audiences, due).await;
                }
                if received == Received::Waiting {
                    *due = (*due).min(Instant::now() + self.exchange.shared.timing.slice_wait);
                }
                Ok(if now_due.upload { Next::Upload } else { Next::Wait })
            }
        }
    }

    /// Fetches, and says when to look again. The session is over if the user's audiences are others.
    async fn look(&self, audiences: &BTreeSet<AudienceKey>, due: &mut Instant) -> Result<Next, SyncError> {
        let same = self.exchange.fetch(audiences).await?;
        *due = Instant::now() + self.interval();
        Ok(if same { Next::Upload } else { Next::End })
    }

    /// Live events; a network that cannot push now is polled.
    async fn subscribe(&self, audiences: &BTreeSet<AudienceKey>) -> Result<BoxStream<'static, Ingress>, SyncError> {
        let audiences: Vec<AudienceKey> = audiences.iter().cloned().collect();
        match self.exchange.network.subscribe(&audiences).await {
            Ok(Some(stream)) => Ok(stream),
            Ok(None) => Ok(pending().boxed()),
            Err(error) if error.is_carrier_trouble() => Ok(pending().boxed()),
            Err(error) => Err(error.into()),
        }
    }

    /// Shows that this device is in step with the server, and tells everybody who waits. What the server's schema cannot
    /// take yet is tried again after a while, no sooner than heads are checked.
    fn pass_done(&mut self) {
        let (carrier, reason) = carrying(&*self.exchange.network);
        let since_ms = match self.carried {
            Some((same, since_ms)) if same == carrier => since_ms,
            Some(_) | None => now_ms(),
        };
        self.carried = Some((carrier, since_ms));
        self.exchange.note(|status| {
            status.connection = Connection::Online { carrier, since_ms, reason };
            status.last_sync_ms = Some(now_ms());
            status.bootstrap = None;
            true
        });
        self.online_since.get_or_insert_with(Instant::now);
        let held = self.exchange.shared.status.borrow().held.clone();
        if held.is_empty() {
            self.retry_held = None;
            return self.answer(&Ok(()));
        }
        let wait = self.exchange.shared.timing.head_check.mul_f64(rand::rng().random_range(1.0..1.5));
        self.retry_held.get_or_insert_with(|| Instant::now() + wait);
        self.answer(&Err(SyncError::Held { held }));
    }

    /// Lets everybody who asked by now wait for the pass that begins now.
    fn take_requests(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.waiting.push(request);
        }
    }

    /// Tells everybody who waits.
    fn answer(&mut self, result: &Result<(), SyncError>) {
        for request in self.waiting.drain(..) {
            let _asker_left = request.send(result.clone());
        }
    }

    /// Shows a failure, and tells everybody who waits.
    fn fail(&mut self, error: SyncError) {
        self.carried = None;
        self.answer(&Err(error.clone()));
        self.exchange.note(|status| {
            status.last_error = Some(FailedPass { error: error.clone(), at_ms: now_ms() });
            status.connection = Connection::Failed { error };
            true
        });
    }

    /// Shows what the driver is about; nobody is woken if it is the same as before.
    fn show(&self, connection: Connection) {
        self.exchange.note(|status| {
            let same = std::mem::discriminant(&status.connection) == std::mem::discriminant(&connection);
            status.connection = connection;
            !same
        });
    }

    /// When to look by itself: rarely while changes are pushed, often while they are not. Jittered by a quarter.
    fn interval(&self) -> Duration {
        let timing = &self.exchange.shared.timing;
        let mean = if self.exchange.network.is_pushing() { timing.head_check } else { timing.poll };
        mean.mul_f64(rand::rng().random_range(0.75..1.25))
    }

    /// How long to wait before looking by another carrier: anything up to when it would be polled.
    fn spread(&self) -> Duration {
        self.exchange.shared.timing.poll.mul_f64(rand::random())
    }

    /// Waits out a failure; a request of the app ends the wait.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            Some(request) = self.requests.recv() => self.waiting.push(request),
        }
    }
}
