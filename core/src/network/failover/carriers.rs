//! The carriers in order of preference, which of them carries, and how those that failed are asked whether they are back.
//!
//! # Invariants
//! - No call waits for a carrier that failed while another is trusted: a probe asks it, beside the calls.
//! - One probe of a carrier at a time; it ends with the carriers.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::FailoverPauses;
use super::health::{Health, Moment, Standing};
use crate::model::ClientId;
use crate::network::{Carrier, CarrierReason, CarrierTrouble, Network, NetworkError};
use crate::wire::SessionRequest;

/// The networks, preferred first.
#[derive(Debug)]
pub(super) struct Carriers {
    members: Vec<Arc<Member>>,
    pub(super) pauses: FailoverPauses,
    /// For whom calls are made, which probes ask for.
    device: Mutex<Option<ClientId>>,
    probes: Mutex<Vec<Option<AbortHandle>>>,
}

/// One network, and what is known of it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) network: Arc<dyn Network>,
    health: Mutex<Health>,
}

impl Carriers {
    pub(super) fn new(networks: Vec<Arc<dyn Network>>, pauses: FailoverPauses) -> Self {
        let now = Instant::now();
        let member = |network| Arc::new(Member { network, health: Mutex::new(Health::new(pauses, now)) });
        let members: Vec<_> = networks.into_iter().map(member).collect();
        let probes = Mutex::new(vec![None; members.len()]);
        Self { members, pauses, device: Mutex::new(None), probes }
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    pub(super) fn network(&self, index: usize) -> &Arc<dyn Network> {
        &self.members[index].network
    }

    /// In the order in which to try them. Those that are to be left alone come last, not never: nothing else may be left.
    pub(super) fn in_order(&self) -> Vec<&Member> {
        let mut ranked: Vec<_> = self.members.iter().map(|member| (member.rank(), &**member)).collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked.into_iter().map(|(_, member)| member).collect()
    }

    /// Whether calls go there unless a better one is trusted, too.
    pub(super) fn is_trusted(&self, index: usize) -> bool {
        self.members[index].rank() == Rank { offline: false, standing: Standing::Trusted }
    }

    /// Whether it may be asked for events: it does not rest.
    pub(super) fn may_be_asked(&self, index: usize) -> bool {
        let Rank { offline, standing } = self.members[index].rank();
        !offline && standing != Standing::Resting
    }

    /// The one that carries now: the first that is trusted, else the first that answers again.
    fn carrying(&self) -> Option<usize> {
        let ranks = self.members.iter().map(|member| member.rank()).enumerate();
        let usable = ranks.filter(|(_, rank)| !rank.offline && rank.standing <= Standing::Proving);
        usable.min_by_key(|(index, rank)| (rank.standing, *index)).map(|(index, _)| index)
    }

    pub(super) fn carrier(&self) -> Carrier {
        self.carrying().map_or(Carrier::Offline, |index| self.network(index).carrier())
    }

    pub(super) fn is_pushing(&self) -> bool {
        self.carrying().is_some_and(|index| self.network(index).is_pushing())
    }

    pub(super) fn reason(&self) -> CarrierReason {
        match self.carrying() {
            _ if self.members.len() < 2 => CarrierReason::Only,
            Some(0) => CarrierReason::Preferred,
            Some(_) | None => self.members[0].reason(),
        }
    }

    /// Remembers for whom calls are made, and asks carriers that are better than the trusted one and may be back.
    pub(super) fn probe_for(&self, device: ClientId) {
        *self.device.lock().expect("BUG: nothing panics while it holds the device's id") = Some(device);
        self.probe();
    }

    /// Asks carriers that are better than the trusted one and may be back. Calls find out about the others.
    pub(super) fn probe(&self) {
        let device = *self.device.lock().expect("BUG: nothing panics while it holds the device's id");
        let trusted = (0..self.members.len()).find(|index| self.is_trusted(*index));
        let (Some(client_id), Some(trusted)) = (device, trusted) else { return };
        let mut probes = self.probes.lock().expect("BUG: nothing panics while it holds the probes");
        for (probe, member) in probes.iter_mut().zip(&self.members).take(trusted) {
            let idle = probe.as_ref().is_none_or(AbortHandle::is_finished);
            if idle && member.wants_probe() {
                *probe = Some(tokio::spawn(Arc::clone(member).probe(client_id)).abort_handle());
            }
        }
    }
}

impl Drop for Carriers {
    fn drop(&mut self) {
        let probes = self.probes.get_mut().expect("BUG: nothing panics while it holds the probes");
        probes.iter().flatten().for_each(AbortHandle::abort);
    }
}

/// How good a choice it is now, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    offline: bool,
    standing: Standing,
}

impl Member {
    fn rank(&self) -> Rank {
        let (says, at) = (self.network.carrier(), Moment::now());
        let mut health = self.health();
        health.says(says, at);
        Rank { offline: says == Carrier::Offline, standing: health.standing(at.now) }
    }

    /// Why it does not carry.
    fn reason(&self) -> CarrierReason {
        let Rank { offline, standing } = self.rank();
        let trouble = self.health().trouble().filter(|_| !offline).unwrap_or(CarrierTrouble::Disconnected);
        match standing {
            Standing::Proving => CarrierReason::Proving { after: trouble },
            Standing::Trusted | Standing::Rested | Standing::Resting => CarrierReason::Fallback { trouble },
        }
    }

    fn wants_probe(&self) -> bool {
        self.network.carrier() != Carrier::Offline && self.health().wants_probe(Instant::now())
    }

    async fn probe(self: Arc<Self>, client_id: ClientId) {
        let answer = self.network.session(&SessionRequest { client_id }).await;
        self.heard(answer.as_ref().err());
    }

    /// Takes note of how a call ended. An error that another carrier would give as well is an answer.
    pub(super) fn heard(&self, error: Option<&NetworkError>) {
        let trouble = match error {
            // Without a token nobody was asked; and what does not fit says nothing of the carrier.
            Some(NetworkError::Token(_)) => return,
            Some(error) if error.is_too_large() => return,
            Some(NetworkError::Timeout { call, after_ms, .. }) => {
                Some(CarrierTrouble::NoAnswer { call, after_ms: *after_ms })
            }
            Some(NetworkError::Unavailable { .. }) => Some(CarrierTrouble::Unavailable),
            Some(_) | None => None,
        };
        let (says, at) = (self.network.carrier(), Moment::now());
        let mut health = self.health();
        health.says(says, at);
        match trouble {
            // It said so before it was asked.
            Some(_) if says == Carrier::Offline => {}
            Some(trouble) => health.failed(trouble, at),
            None => health.answered(at),
        }
        tracing::debug!(carrier = ?says, ?error, standing = ?health.standing(at.now), "heard of a carrier");
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("BUG: nothing panics while it holds a carrier's health")
    }
}

impl Moment {
    fn now() -> Self {
        Self { now: Instant::now(), jitter: rand::random() }
    }
}
