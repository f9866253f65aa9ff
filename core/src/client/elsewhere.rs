//! Notices what other processes commit to the same database.
//!
//! Place in the journey: beside the engine. SQLite tells a connection that others have committed, not what; so the app is
//! told [`Change::Elsewhere`], the status is counted again, and the driver, if it leads, uploads what others executed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use super::ClientError;
use super::feed::Change;
use super::shared::Shared;

/// A shorter interval would only keep the engine from its work.
const ELSEWHERE_MIN: Duration = Duration::from_millis(1);

/// Looks while the client lives.
pub(super) async fn watch(shared: Weak<Shared>) {
    let Some(every) = shared.upgrade().map(|shared| shared.timing.elsewhere.max(ELSEWHERE_MIN)) else { return };
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = look(&shared).await {
            tracing::debug!(error = %error, "cannot look for commits of other processes");
        }
    }
}

async fn look(shared: &Arc<Shared>) -> Result<(), ClientError> {
    let told = Arc::clone(shared);
    shared
        .blocking(move |engine| {
            if engine.changed_elsewhere()? {
                told.tell(Change::Elsewhere);
                told.work.notify_one();
                told.count(engine)?;
            }
            Ok(())
        })
        .await
}
