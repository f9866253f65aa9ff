//! First the preferred carrier, then the next, then back, without the app noticing.
//!
//! Place in the journey: between the client's driver and its transports; itself a [`Network`]. An upload whose outcome is
//! unknown on one carrier is sent again, the same batch, through the next: servers know records by their ids, so it has one
//! effect. Errors that another carrier would answer alike, such as faults, are returned as they are.
//!
//! A carrier that failed is left alone, and then asked beside the calls whether it is back; it is returned to when it has
//! answered for a while. See [`Health`](health::Health) for how long that is. What it pushes is heard all the time.

mod carriers;
mod following;
mod health;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{Carrier, CarrierReason, Ingress, Network, NetworkError};
use crate::model::{AudienceKey, ClientId};
use crate::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use carriers::Carriers;
use following::Following;

/// How long a carrier that failed is left alone, and how long it has to answer before it is returned to.
///
/// Both double from failure to failure, and both are jittered: a rest lasts at least half as long, a proof at most one and
/// a half times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailoverPauses {
    /// After a first failure. A subscriber looks as often whether something better is back.
    pub first: Duration,
    /// At most, after many failures. Failures before so long a time without any are forgiven.
    pub longest: Duration,
}

impl Default for FailoverPauses {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(30) }
    }
}

/// Several carriers to the same server as one network.
///
/// ```
/// # use std::sync::Arc;
/// # use synchrotron_core::network::{Carrier, Failover, Network};
/// # fn example(nats: Arc<dyn Network>, http: Arc<dyn Network>) {
/// let network = Failover::new(vec![nats, http]); // preferred first
/// # }
/// assert_eq!(Failover::new(vec![]).carrier(), Carrier::Offline);
/// ```
#[derive(Debug)]
pub struct Failover {
    carriers: Arc<Carriers>,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, NetworkError>>;

impl Failover {
    /// Tries these in order, preferred first.
    #[must_use]
    pub fn new(networks: Vec<Arc<dyn Network>>) -> Self {
        Self::with_pauses(networks, FailoverPauses::default())
    }

    /// Like [`Self::new`], with other pauses.
    #[must_use]
    pub fn with_pauses(networks: Vec<Arc<dyn Network>>, pauses: FailoverPauses) -> Self {
        Self { carriers: Arc::new(Carriers::new(networks, pauses)) }
    }

    async fn call<'a, T>(
        &'a self,
        device: ClientId,
        call: impl Fn(&'a dyn Network) -> Answer<'a, T>,
    ) -> Result<T, NetworkError> {
        self.carriers.probe_for(device);
        let mut failure: Option<NetworkError> = None;
        for member in self.carriers.in_order() {
            let answer = call(&*member.network).await;
            member.heard(answer.as_ref().err());
            match answer {
                Err(error) if error.is_carrier_trouble() => failure = Some(graver(failure, error)),
                answer => return answer,
            }
        }
        Err(failure.unwrap_or_else(|| NetworkError::Unavailable {
            carrier: Carrier::Offline,
            detail: "no carrier is configured".to_owned(),
        }))
    }
}

/// The error to return of two: one that waiting may mend before one that it cannot.
fn graver(earlier: Option<NetworkError>, later: NetworkError) -> NetworkError {
    match (earlier, later) {
        (Some(earlier), later) if later.is_too_large() => earlier,
        (_, later) => later,
    }
}

#[async_trait]
impl Network for Failover {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.call(request.client_id, |network| network.session(request)).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.call(request.client_id, |network| network.fetch(request)).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.call(batch.client_id, |network| network.upload(batch)).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.call(request.client_id, |network| network.snapshot(request)).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.call(request.client_id, |network| network.digest(request)).await
    }

    /// Events of the first carrier that is up, and of better ones that may be back. The stream outlives every carrier;
    /// it yields [`Ingress::Wakeup`] whenever a carrier's events begin or another takes over.
    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        let following = Following::start(Arc::clone(&self.carriers), audiences).await?;
        Ok(following.map(StreamExt::boxed))
    }

    fn carrier(&self) -> Carrier {
        self.carriers.carrier()
    }

    fn reason(&self) -> CarrierReason {
        self.carriers.reason()
    }

    fn is_pushing(&self) -> bool {
        self.carriers.is_pushing()
    }
}
