//! One device's connection to the server in this process, with the faults that tests need.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use tokio::sync::{broadcast, watch};

use super::MemoryServer;
use crate::model::{AudienceKey, UserId};
use crate::network::{Carrier, Ingress, Network, NetworkError};
use crate::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, Slice, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};

/// What the server tells everybody; each connection picks what its user may know.
#[derive(Debug, Clone)]
pub(super) enum Event {
    /// A commit, in one audience.
    Committed(Arc<Slice>),
    /// What this user may see is another.
    Changed(UserId),
}

/// A connection of one user. Clones are the same connection: keep one to switch its faults.
#[derive(Clone)]
pub struct MemoryNetwork {
    link: Arc<Link>,
}

struct Link {
    server: MemoryServer,
    user: UserId,
    online: watch::Sender<bool>,
    lose_next_outcome: AtomicBool,
    slices_to_lose: AtomicU32,
}

impl MemoryNetwork {
    pub(super) fn new(server: MemoryServer, user: UserId) -> Self {
        let (online, _) = watch::channel(true);
        let link =
            Link { server, user, online, lose_next_outcome: AtomicBool::new(false), slices_to_lose: AtomicU32::new(0) };
        Self { link: Arc::new(link) }
    }

    /// The user that this connection proves.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.link.user
    }

    /// Cuts the connection, or mends it. While it is cut, every call fails at once and live events are missed; when it is
    /// mended, subscribers get a wakeup.
    pub fn set_online(&self, online: bool) {
        self.link.online.send_if_modified(|now| std::mem::replace(now, online) != online);
    }

    /// Lets the next upload reach the server and be decided there, and loses the answer on its way back.
    pub fn lose_next_outcome(&self) {
        self.link.lose_next_outcome.store(true, Ordering::SeqCst);
    }

    /// Loses this many of the next live slices, silently.
    pub fn lose_next_slices(&self, count: u32) {
        self.link.slices_to_lose.store(count, Ordering::SeqCst);
    }

    fn is_online(&self) -> bool {
        *self.link.online.borrow()
    }

    fn check_online(&self) -> Result<(), NetworkError> {
        if self.is_online() {
            return Ok(());
        }
        Err(NetworkError::Unavailable { carrier: Carrier::Memory, detail: "the test cut it".to_owned() })
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").field("user", &self.link.user).field("online", &self.is_online()).finish()
    }
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.check_online()?;
        Ok(self.link.server.state().session(&self.link.user, request)?)
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.check_online()?;
        Ok(self.link.server.state().fetch(&self.link.user, request)?)
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.check_online()?;
        Ok(self.link.server.state().snapshot(&self.link.user, request)?)
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.check_online()?;
        Ok(self.link.server.state().digest(&self.link.user, request)?)
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.check_online()?;
        let outcome = {
            let mut state = self.link.server.state();
            let (outcome, slices) = state.upload(&self.link.user, batch);
            self.link.server.announce(slices.into_iter().map(|slice| Event::Committed(Arc::new(slice))));
            outcome
        };
        if self.link.lose_next_outcome.swap(false, Ordering::SeqCst) {
            return Err(NetworkError::Timeout { carrier: Carrier::Memory, call: "upload", after_ms: 0 });
        }
        Ok(outcome)
    }

    /// Audiences that the user is not in stay silent, also where it leaves one later.
    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        self.check_online()?;
        let subscription = Subscription {
            audiences: audiences.iter().cloned().collect(),
            events: self.link.server.listen(),
            online: self.link.online.subscribe(),
            network: self.clone(),
        };
        Ok(Some(stream::unfold(subscription, Subscription::next).boxed()))
    }

    fn carrier(&self) -> Carrier {
        if self.is_online() { Carrier::Memory } else { Carrier::Offline }
    }
}

struct Subscription {
    audiences: BTreeSet<AudienceKey>,
    events: broadcast::Receiver<Event>,
    online: watch::Receiver<bool>,
    network: MemoryNetwork,
}

impl Subscription {
    async fn next(mut self) -> Option<(Ingress, Self)> {
        loop {
            tokio::select! {
                biased;
                changed = self.online.changed() => {
                    changed.ok()?;
                    // What was published while it was cut is lost.
                    self.events = self.events.resubscribe();
                    if *self.online.borrow_and_update() {
                        return Some((Ingress::Wakeup, self));
                    }
                }
                event = self.events.recv() => match event {
                    Ok(event) => {
                        if let Some(ingress) = self.ingress(event) {
                            return Some((ingress, self));
                        }
                    }
                    Err(broadcast::error::RecvError::Lagged(_)) => return Some((Ingress::Wakeup, self)),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }

    fn ingress(&self, event: Event) -> Option<Ingress> {
        if !self.network.is_online() {
            return None;
        }
        match event {
            Event::Changed(user) => (user == self.network.link.user).then_some(Ingress::Wakeup),
            Event::Committed(slice) => {
                let wanted = self.audiences.contains(&slice.audience_key) && self.is_member(&slice.audience_key);
                (wanted && !self.is_lost()).then(|| Ingress::Slice((*slice).clone()))
            }
        }
    }

    fn is_member(&self, audience: &AudienceKey) -> bool {
        self.network.link.server.state().audiences_of(&self.network.link.user).contains(audience)
    }

    fn is_lost(&self) -> bool {
        let slices = &self.network.link.slices_to_lose;
        slices.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
    }
}
