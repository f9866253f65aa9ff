//! The public keys of an issuer: fetched, kept, and renewed.
//!
//! Place in the journey: beside the verification of each token, which asks here for keys. One task fetches, and nobody
//! else: requests wish for newer keys and wait for its next attempt, however many they are.
//!
//! # Invariants
//! - Two attempts to fetch are never less than [`JwksLimits::pause`] apart, whatever tokens come in.
//! - A set replaces the one before it as a whole: a key that its issuer took back is gone with the next fetch.
//! - A set that could not be renewed is used until it is older than [`JwksLimits::stale_max`], and then no more.
//! - A token is refused for its key only by a set that the newest attempt fetched.

mod fetch;
mod keys;
mod limits;

use std::fmt;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

pub use self::fetch::VerifierError;
pub use self::limits::JwksLimits;

pub(crate) use self::keys::KeySet;

use self::fetch::Fetcher;
use super::error::TokenError;

/// The keys of one issuer, for as long as this lives.
pub(crate) struct Jwks {
    url: Url,
    limits: JwksLimits,
    known: watch::Receiver<Known>,
    /// The number of the attempt that somebody waits for.
    wished: watch::Sender<u64>,
    waiting: Semaphore,
    _keeper: AbortOnDropHandle<()>,
}

/// What the attempts so far have brought.
#[derive(Clone, Default)]
struct Known {
    newest: Option<Fetched>,
    attempts: u64,
    /// When the newest attempt ended.
    attempted_at: Option<Instant>,
    /// Whether it failed.
    failed: bool,
}

#[derive(Clone)]
struct Fetched {
    keys: Arc<KeySet>,
    at: Instant,
}

impl Jwks {
    /// Begins to fetch and keep the keys that are published at `url`.
    ///
    /// # Errors
    /// [`VerifierError`] if this machine has no certificates.
    pub(crate) fn start(url: Url, limits: JwksLimits) -> Result<Self, VerifierError> {
        let fetcher = Fetcher::new(url.clone(), limits)?;
        let (teller, known) = watch::channel(Known::default());
        let wished = watch::Sender::new(0);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(fetcher, limits, teller, wished.subscribe())));
        let waiting = Semaphore::new(limits.waiting_max);
        Ok(Self { url, limits, known, wished, waiting, _keeper: keeper })
    }

    /// The keys to judge a token by.
    ///
    /// # Errors
    /// [`TokenError::KeysUnavailable`] if there are none, or they are too old.
    pub(crate) async fn keys(&self) -> Result<Arc<KeySet>, TokenError> {
        if let Some(keys) = self.usable(&self.known.borrow()) {
            return Ok(keys);
        }
        self.usable(&self.recently().await?).ok_or(TokenError::KeysUnavailable)
    }

    /// Keys that are newer than those, `None` if there are no newer ones.
    ///
    /// # Errors
    /// [`TokenError::KeysUnavailable`] if nobody can say, because the newest attempt failed.
    pub(crate) async fn newer_than(&self, keys: &Arc<KeySet>) -> Result<Option<Arc<KeySet>>, TokenError> {
        let known = self.recently().await?;
        match self.usable(&known) {
            Some(newest) if !known.failed => Ok((!Arc::ptr_eq(&newest, keys)).then_some(newest)),
            Some(_) | None => Err(TokenError::KeysUnavailable),
        }
    }

    /// What is known after an attempt that is recent: the newest, or one that is made now.
    async fn recently(&self) -> Result<Known, TokenError> {
        let mut known = self.known.clone();
        let seen = known.borrow_and_update().clone();
        if seen.attempted_at.is_some_and(|at| at.elapsed() < self.limits.pause) {
            return Ok(seen);
        }
        let _room = self.waiting.try_acquire().map_err(|_| TokenError::KeysUnavailable)?;
        self.wished.send_if_modified(|wished| {
            let is_first = *wished <= seen.attempts;
            *wished = (*wished).max(seen.attempts + 1);
            is_first
        });
        let attempted = known.wait_for(|now| now.attempts > seen.attempts).await;
        attempted.map(|now| now.clone()).map_err(|_| TokenError::KeysUnavailable)
    }

    fn usable(&self, known: &Known) -> Option<Arc<KeySet>> {
        let newest = known.newest.as_ref()?;
        (newest.at.elapsed() <= self.limits.stale_max).then(|| Arc::clone(&newest.keys))
    }
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Fetches for ever: at once, before what is known is old, soon after a failure, and when somebody wishes.
async fn keep(fetcher: Fetcher, limits: JwksLimits, known: watch::Sender<Known>, mut wished: watch::Receiver<u64>) {
    let mut attempts = 0;
    loop {
        attempts += 1;
        let fetched = fetcher.fetch().await;
        match &fetched {
            Ok(keys) => tracing::debug!(keys = keys.len(), "fetched the issuer's keys"),
            Err(error) => tracing::warn!(%error, "the issuer's keys could not be fetched"),
        }
        let (failed, at) = (fetched.is_err(), Instant::now());
        known.send_modify(|known| {
            if let Ok(keys) = fetched {
                known.newest = Some(Fetched { keys: Arc::new(keys), at });
            }
            *known = Known { newest: known.newest.take(), attempts, attempted_at: Some(at), failed };
        });
        tokio::time::sleep(limits.pause).await;
        if !failed {
            let rest = limits.refresh_every.saturating_sub(limits.pause);
            let wish = tokio::time::timeout(rest, wished.wait_for(|wished| *wished > attempts)).await;
            if matches!(wish, Ok(Err(_))) {
                return;
            }
        }
    }
}
