//! First the preferred carrier, then the next, then back, without the app noticing.
//!
//! Place in the journey: between the client's driver and its transports; itself a [`Network`]. An upload whose outcome is
//! unknown on one carrier is sent again, the same batch, through the next: servers know records by their ids, so it has one
//! effect. Errors that another carrier would answer alike, such as faults, are returned as they are.
//!
//! A carrier that failed is left alone for a while that doubles from failure to failure, so that calls do not wait for its
//! timeout each time. It is tried again when that while is over, when its own [`Network::carrier`] says that it is back,
//! or when every other carrier failed too.

mod following;
mod health;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{Carrier, Ingress, Network, NetworkError};
use crate::model::AudienceKey;
use crate::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use following::Following;
use health::Health;

/// How long a failed carrier is left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailoverPauses {
    /// After its first failure. A subscriber looks as often whether something better is back.
    pub first: Duration,
    /// At most, after many failures.
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

/// The networks in order of preference, each with what calls found out about it.
#[derive(Debug)]
struct Carriers {
    networks: Vec<(Arc<dyn Network>, Health)>,
    pauses: FailoverPauses,
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
        let networks = networks.into_iter().map(|network| (network, Health::default())).collect();
        Self { carriers: Arc::new(Carriers { networks, pauses }) }
    }

    async fn call<'a, T>(&'a self, call: impl Fn(&'a dyn Network) -> Answer<'a, T>) -> Result<T, NetworkError> {
        let carriers = &self.carriers;
        // Those that are to be left alone come last, not never: nothing else may be left.
        let (ready, resting): (Vec<_>, Vec<_>) =
            carriers.networks.iter().partition(|(network, health)| health.is_ready(network.carrier()));
        let mut failure: Option<NetworkError> = None;
        for (network, health) in ready.into_iter().chain(resting) {
            match call(network.as_ref()).await {
                Err(error) if error.is_carrier_trouble() => {
                    if !error.is_too_large() {
                        tracing::debug!(%error, "carrier failed");
                        health.failed(network.carrier(), carriers.pauses);
                    }
                    failure = Some(graver(failure, error));
                }
                // Without a token nobody was asked.
                Err(error @ NetworkError::Token(_)) => return Err(error),
                answer => {
                    health.answered();
                    return answer;
                }
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

impl Carriers {
    /// Whether it is to be asked before others, or left alone for now.
    fn is_ready(&self, index: usize) -> bool {
        let (network, health) = &self.networks[index];
        health.is_ready(network.carrier())
    }

    /// Whether calls go there now.
    fn is_up(&self, index: usize) -> bool {
        let (network, health) = &self.networks[index];
        let carrier = network.carrier();
        carrier != Carrier::Offline && health.is_up(carrier)
    }
}

#[async_trait]
impl Network for Failover {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        self.call(|network| network.session(request)).await
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        self.call(|network| network.fetch(request)).await
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        self.call(|network| network.upload(batch)).await
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        self.call(|network| network.snapshot(request)).await
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        self.call(|network| network.digest(request)).await
    }

    /// Events of the first carrier that is up, and of better ones that may be back. The stream outlives every carrier;
    /// it yields [`Ingress::Wakeup`] whenever a carrier's events begin or another takes over.
    async fn subscribe(&self, audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        let following = Following::start(Arc::clone(&self.carriers), audiences).await?;
        Ok(following.map(StreamExt::boxed))
    }

    fn carrier(&self) -> Carrier {
        let up = (0..self.carriers.networks.len()).find(|index| self.carriers.is_up(*index));
        up.map_or(Carrier::Offline, |index| self.carriers.networks[index].0.carrier())
    }

    fn is_pushing(&self) -> bool {
        let up = (0..self.carriers.networks.len()).find(|index| self.carriers.is_up(*index));
        up.is_some_and(|index| self.carriers.networks[index].0.is_pushing())
    }
}
