//! The same connection with other rights or another token, between two calls.
//!
//! Place in the journey: beside it. NATS fixes the rights of a connection when it is made, and ends it when its token
//! expires. So it is made anew when the server says that rights have changed, and shortly before the token expires, at a
//! moment when no call is under way: calls only take longer, and none fails.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_nats::Subscriber;
use futures::StreamExt;
use synchrotron_core::network::NetworkError;
use synchrotron_core::wire;
use tokio::sync::{RwLock, RwLockReadGuard};
use tokio::time::timeout;

use crate::client::late;
use crate::control::Control;
use crate::link::Link;

/// How long before its end a token is replaced, at most; one that holds shortly, after four fifths of what is left.
const BEFORE_EXPIRY_MAX: Duration = Duration::from_secs(30);
/// Devices of one user that are told at once come back one after the other.
const SPREAD_MAX: Duration = Duration::from_millis(200);
/// The largest message that says something of rights.
const CONTROL_BYTES_MAX: usize = 1 << 10;

/// Makes the connection anew between calls.
#[derive(Clone)]
pub(crate) struct Renewal {
    link: Link,
    calls: Arc<RwLock<()>>,
}

impl Renewal {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, calls: Arc::default() }
    }

    /// Keeps the connection as it is, for the time of a call; one that is being renewed is waited for.
    ///
    /// # Errors
    /// [`NetworkError::Timeout`] if that takes longer than the call may.
    pub(crate) async fn call(
        &self,
        call: &'static str,
        within: Duration,
    ) -> Result<RwLockReadGuard<'_, ()>, NetworkError> {
        timeout(within, self.calls.read()).await.map_err(|_elapsed| late(call, within))
    }

    /// Makes the connection anew instead of as number `connects`, when no call is under way.
    ///
    /// In a task of its own: calls wait for its end, and who asks for it, such as a stream of events, may be polled again
    /// only after a call.
    pub(crate) async fn renew(&self, connects: u64) {
        let renewal = self.clone();
        let renewing = tokio::spawn(async move {
            let _alone = renewal.calls.write().await;
            renewal.link.renew(connects).await;
        });
        // Without a connection whoever calls next is told so.
        let _renewed = renewing.await;
    }

    /// Renews whenever the server says so, or the token is about to expire; for ever.
    pub(crate) async fn watch(self, mut told: Subscriber) {
        let mut replaced = None;
        loop {
            let connects = self.link.up().await;
            let expires = self.link.expires().filter(|expires| Some(*expires) != replaced);
            tokio::select! {
                message = told.next() => {
                    let Some(message) = message else { return };
                    if let Ok(Control::Renew) = wire::decode(&message.payload, CONTROL_BYTES_MAX) {
                        tokio::time::sleep(SPREAD_MAX.mul_f64(rand::random())).await;
                        self.renew(connects).await;
                    }
                }
                () = until_nearly(expires) => {
                    // A source that has no other token is not asked again: NATS ends the connection then.
                    replaced = expires;
                    self.renew(connects).await;
                }
                () = self.link.lost(connects) => {}
            }
        }
    }
}

/// Waits until a token is about to expire.
async fn until_nearly(expires: Option<SystemTime>) {
    let Some(expires) = expires else { return std::future::pending().await };
    let left = expires.duration_since(SystemTime::now()).unwrap_or_default();
    let before = (left / 5).min(BEFORE_EXPIRY_MAX);
    tokio::time::sleep(left.saturating_sub(before.mul_f64(1.0 + rand::random::<f64>() / 2.0))).await;
}
