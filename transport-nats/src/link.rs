//! One connection to NATS that comes back for ever, and what is known of it.
//!
//! Place in the journey: beneath both ends. Whoever waits for an answer also waits for the link to be lost, so that
//! nobody waits for what can no longer come.
//!
//! # Invariants
//! - [`Link::connect`] returns also when NATS is away.
//! - A loss is noticed at once when the socket closes, and after three silent ping intervals when it does not.
//! - Pauses between attempts have full jitter, so that devices do not come back all at the same moment.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, Event};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::settings::Servers;

/// How to hold a [`Link`].
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Where NATS is.
    pub servers: Servers,
    /// What the NATS server shows to its operator.
    pub name: &'static str,
    /// How long one attempt to connect may take.
    pub connect_within: Duration,
    /// The longest pause between two attempts.
    pub reconnect_pause_max: Duration,
    /// How often a silent server is asked whether it is there.
    pub ping_every: Duration,
    /// How many messages of one subscription may wait to be read.
    pub capacity: usize,
}

/// What is known of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkState {
    /// Whether it is up.
    pub connected: bool,
    /// How often it came up.
    pub connects: u64,
    /// How often a message was dropped because nobody read it.
    pub overflows: u64,
}

/// A connection that comes back for ever. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Link {
    held: Arc<Held>,
}

struct Held {
    client: Client,
    state: watch::Receiver<LinkState>,
    connected: watch::Receiver<bool>,
    watchdog: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

/// The first pause is at most twice this.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// How often the link's own account is compared with the client's: its events are lost when too many come at once.
const CHECK_EVERY: Duration = Duration::from_secs(1);

impl Link {
    /// Begins to connect, and returns.
    pub async fn connect(options: LinkOptions) -> Self {
        let (state, state_seen) = watch::channel(LinkState::default());
        let (connected, connected_seen) = watch::channel(false);
        let told = Arc::new(Told { state, connected });
        let pause_max = options.reconnect_pause_max;
        let on_event = Arc::clone(&told);
        let client = ConnectOptions::new()
            .name(options.name)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(options.connect_within)
            .ping_interval(options.ping_every)
            .subscription_capacity(options.capacity)
            .reconnect_delay_callback(move |attempts| pause_before(attempts, pause_max))
            .event_callback(move |event| {
                on_event.take(&event);
                std::future::ready(())
            })
            .connect(options.servers.addresses())
            .await
            .expect("BUG: with retries, only addresses can be wrong, and these are parsed");
        let watchdog = tokio::spawn(watch_over(client.clone(), told)).abort_handle();
        Self { held: Arc::new(Held { client, state: state_seen, connected: connected_seen, watchdog }) }
    }

    /// The client of this connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.held.client
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        *self.held.state.borrow()
    }

    /// What is known, and what becomes known.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.held.state.clone()
    }

    /// Whether it is up, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.held.connected.clone()
    }

    /// Returns when the connection that came up as number `connects` is no more.
    pub async fn lost(&self, connects: u64) {
        let mut states = self.states();
        // An error means that the client has ended: lost, too.
        let _ended = states.wait_for(|state| !state.connected || state.connects != connects).await;
    }

    /// Returns when it is up; how often it came up by then. Never, if the client has ended.
    pub async fn up(&self) -> u64 {
        let mut states = self.states();
        let connects = states.wait_for(|state| state.connected).await.map(|state| state.connects);
        match connects {
            Ok(connects) => connects,
            Err(_ended) => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("state", &self.state()).finish_non_exhaustive()
    }
}

/// The link's account of the connection.
#[derive(Debug)]
struct Told {
    state: watch::Sender<LinkState>,
    connected: watch::Sender<bool>,
}

impl Told {
    fn take(&self, event: &Event) {
        match event {
            Event::Connected => {
                self.state.send_modify(|state| {
                    state.connected = true;
                    state.connects += 1;
                });
                self.connected.send_replace(true);
            }
            Event::Disconnected | Event::Closed => self.is_down(),
            Event::SlowConsumer(_) => self.state.send_modify(|state| state.overflows += 1),
            Event::ServerError(error) => tracing::warn!(%error, "NATS refused something"),
            Event::ClientError(error) => tracing::debug!(%error, "NATS client"),
            Event::LameDuckMode | Event::Draining => {}
        }
    }

    fn is_down(&self) {
        self.state.send_modify(|state| state.connected = false);
        self.connected.send_replace(false);
    }
}

/// Corrects the account where an event was lost.
async fn watch_over(client: Client, told: Arc<Told>) {
    let mut check = tokio::time::interval(CHECK_EVERY);
    let mut differed = false;
    loop {
        check.tick().await;
        let connected = client.connection_state() == State::Connected;
        let differs = connected != told.state.borrow().connected;
        // An event may be on its way: only what differs twice was lost.
        if differs && differed {
            if connected { told.take(&Event::Connected) } else { told.is_down() }
        }
        differed = differs;
    }
}

/// Full jitter: anything between nothing and a bound that doubles up to `max`.
fn pause_before(attempts: usize, max: Duration) -> Duration {
    let doubled = u32::try_from(attempts).ok().and_then(|shift| 1_u32.checked_shl(shift)).unwrap_or(u32::MAX);
    PAUSE_MIN.saturating_mul(doubled).min(max).mul_f64(rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_no_further() {
        let max = Duration::from_secs(2);
        for attempts in [0, 1, 5, 31, 32, 33, 1_000, usize::MAX] {
            assert!((0..100).all(|_| pause_before(attempts, max) <= max));
        }
        assert!((0..100).all(|_| pause_before(1, max) <= 2 * PAUSE_MIN));
        assert!((0..1_000).any(|_| pause_before(20, max) > max / 2));
    }

    #[tokio::test]
    async fn connecting_returns_also_when_nats_is_away() {
        let options = LinkOptions {
            servers: "nats://127.0.0.1:1".parse().expect("an address"),
            name: "test",
            connect_within: Duration::from_secs(1),
            reconnect_pause_max: Duration::from_millis(100),
            ping_every: Duration::from_secs(1),
            capacity: 1,
        };
        let link = Link::connect(options).await;
        assert_eq!(link.state(), LinkState::default());
        link.lost(0).await;
    }
}
