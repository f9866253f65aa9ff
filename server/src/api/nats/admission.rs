//! Room for requests, and each user's part of it.
//!
//! Place in the journey: before a request is read. All of them come by one connection, in one line, so what nobody has room
//! for must cost next to nothing: those of others wait behind it.
//!
//! # Invariants
//! - There is room for so many requests, whoever asks; a user has its part of it.
//! - Who is refused is told so, but one that asks on and on is told a few times in a second only.

use std::num::NonZeroU32;
use std::sync::Arc;

use async_nats::Message;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_nats::subjects::{RpcSubject, Subjects};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::NatsApiSettings;
use crate::limits::{Share, UserLimits};

/// How often in a second a user is told that it asks too much, and all together that what they ask is nothing.
const REFUSALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).expect("BUG: not zero");

/// What is taken of the room by those who are served now.
#[derive(Debug)]
pub(super) struct Admission {
    all: Arc<Semaphore>,
    users: UserLimits,
    refusals: UserLimits,
    malformed: DefaultDirectRateLimiter,
}

/// What is asked, as the subject says, and the room for it.
pub(super) struct Asked {
    pub(super) subject: RpcSubject,
    _room: (OwnedSemaphorePermit, Share),
}

impl Admission {
    pub(super) fn new(settings: &NatsApiSettings) -> Self {
        Self {
            all: Arc::new(Semaphore::new(settings.requests_max)),
            users: UserLimits::new(settings.requests_per_user_max, Some(settings.requests_per_second_per_user)),
            refusals: UserLimits::new(usize::MAX, Some(REFUSALS_PER_SECOND.get())),
            malformed: RateLimiter::direct(Quota::per_second(REFUSALS_PER_SECOND)),
        }
    }

    /// Admits a request; what to answer to one that is refused, if anything.
    pub(super) fn admit(&self, subjects: &Subjects, request: &Message) -> Result<Asked, Option<Fault>> {
        // Another process of ours may hand on what it had from a device.
        let parsed = subjects.parse_held(&request.subject).or_else(|_| subjects.parse_rpc(&request.subject));
        let subject = parsed.map_err(|error| {
            let told = self.malformed.check().is_ok();
            told.then(|| Fault::new(FaultCode::Malformed, error.to_string()))
        })?;
        let user_id = subject.user.user_id();
        let busy = |fact| {
            let told = self.refusals.admit(&user_id, 1).is_ok();
            told.then(|| Fault::new(FaultCode::Unavailable, fact))
        };
        let share = self.users.admit(&user_id, 1).map_err(|_after| busy("too many requests of this user"))?;
        let place = Arc::clone(&self.all).try_acquire_owned().map_err(|_| busy("too many requests at once"))?;
        Ok(Asked { subject, _room: (place, share) })
    }

    /// Waits until nobody is served.
    pub(super) async fn is_empty(&self, settings: &NatsApiSettings) {
        let all = u32::try_from(settings.requests_max).unwrap_or(u32::MAX);
        let _all = self.all.acquire_many(all).await;
    }
}
