//! Who asks, and whether there is room for it.
//!
//! # Invariants
//! - There is room for so many requests and so many listeners, whoever asks; a user has its part of both.
//! - A listener takes no request's room: it would hold it for hours.
//! - A request has its place until it is answered, and its user's share until the answer is sent: one that reads slowly takes
//!   nobody else's place.

use std::sync::Arc;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use synchrotron_core::wire::{Fault, FaultCode};
use synchrotron_http::routes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Api;
use super::answer::Refusal;
use crate::auth::Principal;
use crate::limits::{Share, UserLimits};
use crate::metrics::{AuthRefusal, METRICS};
use crate::settings::HttpSettings;

/// What is taken of the room by those who are served now.
#[derive(Debug)]
pub(super) struct Admission {
    requests: Room,
    listeners: Room,
}

#[derive(Debug)]
struct Room {
    all: Arc<Semaphore>,
    users: UserLimits,
}

/// Who was admitted, for as long as it takes.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) principal: Principal,
    /// Of the room of all.
    pub(super) place: OwnedSemaphorePermit,
    /// Of its user's part.
    pub(super) share: Share,
}

impl Admission {
    pub(super) fn new(settings: &HttpSettings) -> Self {
        let room = |max: usize, per_user_max, per_second| Room {
            all: Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS))),
            users: UserLimits::new(per_user_max, per_second),
        };
        let rate = Some(settings.requests_per_second_per_user);
        Self {
            requests: room(settings.requests_max, settings.requests_per_user_max, rate),
            listeners: room(settings.streams_max, settings.streams_per_user_max, rate),
        }
    }
}

impl Api {
    /// Admits a request.
    pub(super) async fn admit(&self, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        self.admit_into(&self.admission.requests, headers).await
    }

    /// Admits somebody who listens.
    pub(super) async fn admit_listener(&self, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        self.admit_into(&self.admission.listeners, headers).await
    }

    async fn admit_into(&self, room: &Room, headers: &HeaderMap) -> Result<Admitted, Refusal> {
        let place = Arc::clone(&room.all).try_acquire_owned();
        let place = place.map_err(|_| Fault::new(FaultCode::Unavailable, "too many requests at once"))?;
        let token = bearer(headers).inspect_err(|_| METRICS.auth_refused(AuthRefusal::NoToken))?;
        let principal = self.verifier.verify(token).await?;
        let share = room.users.admit(&principal.user_id, 1);
        let share = share.map_err(|after| Refusal::too_many("too many requests of this user", after))?;
        Ok(Admitted { principal, place, share })
    }
}

/// The token of the `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, Fault> {
    let refused = |fact| Fault::new(FaultCode::Unauthenticated, fact);
    let header = headers.get(AUTHORIZATION).ok_or_else(|| refused("no Authorization header"))?;
    let text = header.to_str().map_err(|_| refused("the Authorization header is not text"))?;
    match text.split_at_checked(routes::BEARER.len()) {
        // The scheme's name is case-insensitive (RFC 9110, section 11.1).
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(routes::BEARER) => Ok(token.trim()),
        Some(_) | None => Err(refused("the Authorization header holds no bearer token")),
    }
}
