//! One connection to NATS that comes back for ever, and what is known of it.
//!
//! Place in the journey: beneath both ends. Whoever waits for an answer also waits for the link to be lost, so that
//! nobody waits for what can no longer come.
//!
//! # Invariants
//! - [`Link::connect`] returns also when NATS is away.
//! - It is up when NATS has answered on it: then NATS also has all its subscriptions.
//! - A loss is noticed at once when the socket closes, and after three silent ping intervals when it does not.
//! - Pauses between attempts have full jitter, so that devices do not come back all at the same moment; they grow longer
//!   for one that is refused than for one that finds nobody.

mod info;
mod login;
mod tokens;
mod told;
mod watchdog;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::Client;
use synchrotron_core::network::NetworkError;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;

pub use info::ConnectionInfo;
pub use login::Login;
pub(crate) use told::denied;
pub use told::{Denial, DeniedAction, LinkState};

use self::tokens::Tokens;
use self::told::Told;
use crate::settings::{Servers, Tls};

/// How to hold a [`Link`].
#[derive(Debug, Clone)]
pub struct LinkOptions {
    /// Where NATS is.
    pub servers: Servers,
    /// How the connection proves who it is.
    pub login: Login,
    /// How it is encrypted, where the URL or the server asks for that.
    pub tls: Tls,
    /// What the NATS server shows to its operator.
    pub name: &'static str,
    /// What the subjects of answers begin with.
    pub inbox_prefix: String,
    /// How long one attempt to connect may take.
    pub connect_within: Duration,
    /// The longest pause between two attempts.
    pub reconnect_pause_max: Duration,
    /// How often a silent server is asked whether it is there.
    pub ping_every: Duration,
    /// How many messages of one subscription may wait to be read.
    pub capacity: usize,
}

/// A connection that comes back for ever. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Link {
    held: Arc<Held>,
}

struct Held {
    client: Client,
    told: Arc<Told>,
    tokens: Option<Arc<Tokens>>,
    watchdog: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}

/// The first pause is at most twice this.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// The longest pause of one that is refused: its token is asked for each time, and a server judges it.
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(15);
/// How long those who call wait while the connection is made anew.
const RENEWED_WITHIN: Duration = Duration::from_secs(2);

impl Link {
    /// Begins to connect, and returns.
    pub async fn connect(options: LinkOptions) -> Self {
        let told = Arc::new(Told::new());
        let tokens = match &options.login {
            Login::Token(source, within) => Some(Arc::new(Tokens::new(Arc::clone(source), *within, Arc::clone(&told)))),
            _ => None,
        };
        let (on_event, on_pause) = (Arc::clone(&told), Arc::clone(&told));
        let pause_max = options.reconnect_pause_max;
        let connecting = options.login.options(&options.servers, tokens.as_ref());
        let client = options
            .tls
            .add_to(connecting)
            .name(options.name)
            .custom_inbox_prefix(options.inbox_prefix)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .connection_timeout(options.connect_within)
            .ping_interval(options.ping_every)
            .subscription_capacity(options.capacity)
            .reconnect_delay_callback(move |attempts| {
                let refused = on_pause.refusal().is_some();
                pause_before(attempts, if refused { pause_max.max(REFUSED_PAUSE_MAX) } else { pause_max })
            })
            .event_callback(move |event| {
                on_event.take(&event);
                std::future::ready(())
            })
            .connect(options.servers.addresses())
            .await
            .expect("BUG: with retries, only addresses can be wrong, and these are parsed");
        let watchdog = tokio::spawn(watchdog::watch_over(client.clone(), Arc::clone(&told))).abort_handle();
        Self { held: Arc::new(Held { client, told, tokens, watchdog }) }
    }

    /// The client of this connection.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.held.client
    }

    /// What is known now.
    #[must_use]
    pub fn state(&self) -> LinkState {
        *self.held.told.state.borrow()
    }

    /// What is known, and what becomes known.
    #[must_use]
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.held.told.state.subscribe()
    }

    /// What NATS said of the connection that came up last.
    #[must_use]
    pub fn info(&self) -> Arc<ConnectionInfo> {
        self.held.told.info()
    }

    /// Whether it is up, and when that changes.
    #[must_use]
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.held.told.connected.subscribe()
    }

    /// Why it is not up, if it is not that NATS is away.
    #[must_use]
    pub fn refusal(&self) -> Option<NetworkError> {
        self.held.told.refusal()
    }

    /// What NATS will not let it do, from now on.
    #[must_use]
    pub fn denials(&self) -> broadcast::Receiver<Denial> {
        self.held.told.denials.subscribe()
    }

    /// When the token that it connected with expires, if it has one that says so.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.held.tokens.as_ref()?.expires()
    }

    /// Connects anew instead of as number `connects`, with a new token and the rights of now; returns when it is up. Does
    /// nothing if it has done so since.
    pub async fn renew(&self, connects: u64) {
        if self.state().connects != connects || self.client().force_reconnect().await.is_err() {
            return;
        }
        let mut states = self.states();
        let renewed = states.wait_for(|state| state.connected && state.connects != connects);
        // Where NATS went away or refuses, whoever calls next is told so.
        let _renewed = tokio::time::timeout(RENEWED_WITHIN, renewed).await;
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
            login: Login::Url,
            tls: Tls::default(),
            name: "test",
            inbox_prefix: "_INBOX".to_owned(),
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
