//! Slices as they are republished, and a wakeup whenever one may have been missed.
//!
//! Place in the journey: before `integrate`. Core subscriptions with a small capacity: what is missed is fetched, so
//! nothing is kept here for a slow reader.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{self, BoxStream, Stream, StreamExt};
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::{Carrier, Ingress, NetworkError};
use synchrotron_core::wire::{self, Slice};
use tokio::sync::watch;

use crate::client::{NatsNetwork, unavailable};
use crate::link::{Denial, DeniedAction, Link, LinkState, denied};

/// How long subscribing may take.
const SUBSCRIBE_WITHIN: Duration = Duration::from_secs(5);

impl NatsNetwork {
    /// Subscribes to these audiences. The stream begins with a wakeup, because slices of before are not in it. It ends when
    /// NATS lets this connection hear one of them no longer.
    ///
    /// An audience may be newer than the connection's rights: then they are renewed, once.
    pub(crate) async fn listen(&self, audiences: &[AudienceKey]) -> Result<BoxStream<'static, Ingress>, NetworkError> {
        let connects = self.require_connection()?;
        match self.try_listen(audiences).await {
            Err(NetworkError::NotPermitted { .. }) => {
                self.renewal.renew(connects).await;
                self.try_listen(audiences).await
            }
            listening => listening,
        }
    }

    async fn try_listen(&self, audiences: &[AudienceKey]) -> Result<BoxStream<'static, Ingress>, NetworkError> {
        let _calling = self.renewal.call("subscribe", SUBSCRIBE_WITHIN).await?;
        let connects = self.require_connection()?;
        let subjects: BTreeMap<String, AudienceKey> =
            audiences.iter().map(|audience| (self.subjects.live(audience).to_string(), audience.clone())).collect();
        let mut denials = self.link.denials();
        let subscribing = self.subscribe_to(&subjects);
        let slices = self.bounded("subscribe", SUBSCRIBE_WITHIN, connects, subscribing).await?;
        // Rights may be others after the next reconnect.
        let ending = async move {
            let concerns =
                |denial: &Denial| denial.action == DeniedAction::Subscribe && subjects.contains_key(&denial.subject);
            drop(denied(&mut denials, concerns).await);
        };
        Ok(stream::select(wakeups(self.link.clone()), stream::select_all(slices)).take_until(ending.boxed()).boxed())
    }

    /// Subscribes to what this connection may hear, if that is all of these.
    async fn subscribe_to(
        &self,
        subjects: &BTreeMap<String, AudienceKey>,
    ) -> Result<Vec<impl Stream<Item = Ingress> + Send + 'static + use<>>, NetworkError> {
        let rights = self.link.info();
        if let Some((_, audience)) = subjects.iter().find(|(subject, _)| !rights.may_hear(subject)) {
            return Err(NetworkError::NotPermitted {
                carrier: Carrier::Nats,
                what: format!("listening to {audience}"),
            });
        }
        let (client, bytes_max) = (self.link.client(), self.settings.message_bytes_max);
        let mut slices = Vec::with_capacity(subjects.len());
        for (subject, audience) in subjects {
            let messages = client.subscribe(subject.clone()).await.map_err(|error| unavailable(error.to_string()))?;
            let audience = audience.clone();
            slices.push(messages.map(move |message| ingress(&audience, &message.payload, bytes_max)));
        }
        client.flush().await.map_err(|error| unavailable(error.to_string()))?;
        Ok(slices)
    }
}

fn ingress(audience: &AudienceKey, payload: &[u8], bytes_max: usize) -> Ingress {
    match wire::decode::<Slice>(payload, bytes_max) {
        Ok(slice) if slice.audience_key == *audience => Ingress::Slice(slice),
        Ok(_) => {
            tracing::warn!(%audience, "a slice of another audience");
            Ingress::Wakeup
        }
        Err(error) => {
            tracing::warn!(%audience, %error, "unreadable slice");
            Ingress::Wakeup
        }
    }
}

/// One wakeup now, and one whenever the connection came back, with our subscriptions, or messages were dropped.
fn wakeups(link: Link) -> impl Stream<Item = Ingress> + Send + 'static {
    let states = link.states();
    stream::unfold((link, states, None), async |(link, mut states, seen)| {
        let state = next_gap(&mut states, seen).await?;
        Some((Ingress::Wakeup, (link, states, Some(state))))
    })
}

/// The next state in which something may have been missed since `seen`; `None` when the client has ended.
async fn next_gap(states: &mut watch::Receiver<LinkState>, seen: Option<LinkState>) -> Option<LinkState> {
    let is_gap = |state: &LinkState| {
        state.connected && seen.is_none_or(|seen| seen.connects != state.connects || seen.overflows != state.overflows)
    };
    states.wait_for(is_gap).await.ok().map(|state| *state)
}
