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

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::exchange::Exchange;
use super::leadership::Leadership;
use super::shared::Shared;
use super::slot::SyncRequest;
use super::{Connection, FailedPass, SyncError};
use crate::engine::EngineError;
use crate::network::{Carrier, Network};
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

pub(super) struct Driver {
    pub(super) exchange: Exchange,
    pub(super) requests: mpsc::UnboundedReceiver<SyncRequest>,
    /// Who waits for the pass that runs now, or comes next.
    pub(super) waiting: Vec<SyncRequest>,
    /// Since when this session is in step with the server.
    pub(super) online_since: Option<Instant>,
    /// What carried the newest pass, and since when, in milliseconds since 1970.
    pub(super) carried: Option<(Carrier, i64)>,
    /// When what waits for the server's schema is tried again, if anything does.
    pub(super) retry_held: Option<Instant>,
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

    /// Lets everybody who asked by now wait for the pass that begins now.
    pub(super) fn take_requests(&mut self) {
        while let Ok(request) = self.requests.try_recv() {
            self.waiting.push(request);
        }
    }

    /// Tells everybody who waits.
    pub(super) fn answer(&mut self, result: &Result<(), SyncError>) {
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

    /// Waits out a failure; a request of the app ends the wait.
    async fn pause(&mut self, wait: Duration) {
        tokio::select! {
            () = sleep(wait) => {}
            Some(request) = self.requests.recv() => self.waiting.push(request),
        }
    }
}
