//! One device that listens: what it was told, and what is new.
//!
//! Place in the journey: beneath [`super::events`] and [`super::poll`], which differ in how they say it.

use std::sync::Arc;
use std::time::Duration;

use synchrotron_core::model::WakeupId;
use synchrotron_core::wire::{EndReason, Fault, FaultCode, Wakeup};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::Api;
use super::admission::Admitted;
use crate::clock;
use crate::wakeups::{Newest, Told};

/// How long the first look for a user may take.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(5);
/// A token that is good until the end of time is asked for again some day.
const TOKEN_HOLDS_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// A device that listens, for as long as its token holds.
pub(super) struct Listening {
    newest: Newest,
    told: Arc<Told>,
    ends_at: Instant,
    stop: CancellationToken,
    _admitted: Admitted,
}

impl Listening {
    /// Begins to listen; with what the device has missed since it was told `seen`, if it has missed anything, or if
    /// nobody can know.
    pub(super) async fn begin(
        api: &Api,
        admitted: Admitted,
        seen: Option<WakeupId>,
    ) -> Result<(Self, Option<Wakeup>), Fault> {
        let mut newest = api.listeners.join(&admitted.principal.user_id);
        let told = match timeout(FIRST_LOOK_WITHIN, newest.wait_for(Option::is_some)).await {
            Ok(Ok(told)) => told.clone().expect("BUG: it was waited for"),
            Ok(Err(_)) | Err(_) => {
                return Err(Fault::new(FaultCode::Unavailable, "the server cannot reach its database now"));
            }
        };
        let missed = (seen != Some(told.id)).then(|| told.since(None));
        let leeway = Duration::from_secs(api.service.settings().jwt.leeway_seconds);
        let ends_at = Instant::now() + holds_for(admitted.principal.expires_at, leeway);
        let stop = api.stop.clone();
        Ok((Self { newest, told, ends_at, stop, _admitted: admitted }, missed))
    }

    /// What the device was told last.
    pub(super) fn seen(&self) -> Wakeup {
        self.told.since(Some(&self.told))
    }

    /// What is new, as soon as something is; or why nothing more will be.
    pub(super) async fn next(&mut self) -> Result<Wakeup, EndReason> {
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(EndReason::ShuttingDown),
                () = sleep_until(self.ends_at) => return Err(EndReason::TokenExpired),
                changed = self.newest.changed() => changed.map_err(|_| EndReason::ShuttingDown)?,
            }
            let newest = self.newest.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|newest| newest.id != self.told.id) {
                let wakeup = newest.since(Some(&self.told));
                self.told = newest;
                return Ok(wakeup);
            }
        }
    }
}

/// For how long a token holds from now on, clocks that differ included.
fn holds_for(expires_at: Option<i64>, leeway: Duration) -> Duration {
    let Some(expires_at) = expires_at else { return TOKEN_HOLDS_MAX };
    let expires_at = Duration::from_secs(u64::try_from(expires_at).unwrap_or(0));
    (expires_at + leeway).saturating_sub(clock::since_1970()).min(TOKEN_HOLDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_holds_until_its_end_and_a_little_longer() {
        let now = clock::since_1970().as_secs();
        let expires_at = |seconds: i64| Some(i64::try_from(now).expect("fits") + seconds);
        let leeway = Duration::from_secs(30);
        assert_eq!(holds_for(expires_at(-60), leeway), Duration::ZERO);
        assert!(holds_for(expires_at(60), leeway) > Duration::from_secs(85));
        assert_eq!(holds_for(Some(i64::MAX), leeway), TOKEN_HOLDS_MAX);
        assert_eq!(holds_for(Some(-5), leeway), Duration::ZERO);
        assert_eq!(holds_for(None, leeway), TOKEN_HOLDS_MAX);
    }
}
