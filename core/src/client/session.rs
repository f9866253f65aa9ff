//! A session: who are we, what is new, then live until something breaks or the audiences change.
//!
//! Place in the journey: within the [driver](super::driver), one after the other.
//!
//! # Invariants
//! - Nothing but a look puts the next one off: what is pushed says nothing of what is missing.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{BoxStream, pending};
use rand::Rng;
use tokio::time::{Instant, sleep_until};

use super::carrier::{carrying, carrying_changes};
use super::driver::{Driver, now_ms};
use super::upload::Uploaded;
use super::{Connection, SyncError};
use crate::engine::Received;
use crate::model::AudienceKey;
use crate::network::Ingress;

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
    /// One session: who are we, what is new, then live until something breaks or the audiences change.
    pub(super) async fn session(&mut self) -> Result<(), SyncError> {
        let exchange = &self.exchange;
        let audiences = exchange.session().await?;
        exchange.bootstrap().await?;
        let mut carrying = carrying(&*exchange.network);
        let mut ingress = self.subscribe(&audiences).await?;
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
}
