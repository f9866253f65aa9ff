//! The conformance suite: what a network and the server behind it owe a device, as tests.
//!
//! Place in the journey: beside it. Every implementation of [`Network`] passes it, with the server that it talks to: give
//! a [`NetworkFixture`] and let [`network_suite!`](crate::network_suite) make a test of each rule.
//!
//! ```
//! # use std::sync::Arc;
//! # use synchrotron_core::model::{AudienceKey, ClientId, Columns, Epoch, RowKey, UserId};
//! # use synchrotron_core::network::{Network, NetworkError, memory::MemoryServer, suite::NetworkFixture};
//! struct Fixture(MemoryServer);
//!
//! #[async_trait::async_trait]
//! impl NetworkFixture for Fixture {
//!     async fn connect(&self, user: &UserId, _: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
//!         Ok(Arc::new(self.0.connect(user.clone())))
//!     }
//!
//!     async fn allow(&self, user: &UserId, audience: &AudienceKey) {
//!         self.0.allow(user, audience);
//!     }
//!
//!     async fn server_row(&self, row: &RowKey) -> Option<Columns> {
//!         self.0.rows(&row.table).remove(&row.row_id).map(|row| row.columns)
//!     }
//! }
//!
//! // The expression is evaluated once for each test and may await.
//! synchrotron_core::network_suite!(Fixture(MemoryServer::new(Epoch::from_uuid(uuid::Uuid::nil()), 1_000_000)));
//! ```
//!
//! # What the server must have
//! No users, no records, chunks of snapshots of less than 1 MB, and two tracked tables that every user may read and write within its audiences:
//!
//! | table | columns beside `id text primary key` |
//! |---|---|
//! | `notes` | `owner text not null`, `body text not null`, `audience_key text` generated as `'user:' \|\| owner` |
//! | `seats` | `label text not null`, `holder text`, `audience_key text not null` |

mod correcting;
mod device;
mod live;
mod reading;
mod refusing;
mod replica;
mod snapshots;
mod taking;
mod uploading;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use correcting::{
    a_correction_amends_its_action_and_keeps_later_writes, equal_corrections_are_one_record,
    rows_follow_the_clocks_and_not_the_arrivals,
};
pub use live::{a_subscriber_hears_of_a_commit, live_events_keep_to_the_users_audiences};
pub use reading::{
    a_fetch_brings_the_users_audiences_only, a_fetch_repeats_itself, a_session_names_the_user_and_its_heads,
    pages_reach_every_record,
};
pub use refusing::{
    a_clock_far_ahead_is_told, a_false_audience_is_rejected, a_foreign_audience_is_denied, a_foreign_device_is_refused,
    a_malformed_record_is_rejected, an_id_with_other_content_is_rejected, another_epoch_is_told,
};
pub use snapshots::{
    a_chunk_again_is_the_same, a_digest_is_that_of_the_rows, a_foreign_audience_is_in_no_snapshot,
    a_snapshot_brings_the_rows_of_the_log, a_snapshot_is_one_moment_and_fetch_goes_on_from_it,
    a_snapshot_of_another_epoch_is_refused, a_snapshot_tells_the_floor, a_snapshot_tells_which_own_records_it_holds,
    an_unknown_snapshot_is_gone,
};
pub use uploading::{
    a_device_behind_the_head_is_told_the_heads, a_repeated_batch_has_one_effect, accepted_records_are_numbered,
    own_uploads_leave_nobody_behind, repeated_records_in_another_batch_have_one_effect,
};

use super::{Network, NetworkError};
use crate::model::{AudienceKey, ClientId, Columns, RowKey, UserId};

/// A fresh server side, and ways to it.
#[async_trait]
pub trait NetworkFixture: Send + Sync {
    /// A connection that proves to be `user`, from the device `client_id`.
    ///
    /// # Errors
    /// If the server refuses this user on this device.
    async fn connect(&self, user: &UserId, client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError>;

    /// Puts a user into an audience. Users are in no other audiences than these. Rules do it before they connect.
    async fn allow(&self, user: &UserId, audience: &AudienceKey);

    /// The row as the server holds it, whoever may see it: its columns without `id` and `audience_key`.
    async fn server_row(&self, row: &RowKey) -> Option<Columns>;
}

/// How long one rule may take.
const RULE_DEADLINE: Duration = Duration::from_secs(120);
/// How long a rule waits for any one thing.
const WAIT_DEADLINE: Duration = Duration::from_secs(30);
/// How long it waits between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Runs one rule within a deadline; [`network_suite!`](crate::network_suite) calls it.
///
/// # Panics
/// If the rule does not hold, or does not end in time.
pub async fn run(name: &str, rule: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(RULE_DEADLINE, rule).await.is_ok(), "{name} did not end within {RULE_DEADLINE:?}");
}

/// Waits for one thing within a deadline.
async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(WAIT_DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come within {WAIT_DEADLINE:?}"))
}

/// Asks until the carrier answers, within a deadline: an unknown outcome means asking again. That it does not permit it, or
/// does not let the device in, is an answer.
async fn answered<T, F>(what: &str, ask: impl Fn() -> F) -> Result<T, NetworkError>
where
    F: Future<Output = Result<T, NetworkError>>,
{
    let deadline = tokio::time::Instant::now() + WAIT_DEADLINE;
    loop {
        match ask().await {
            answer @ Err(NetworkError::Unauthenticated { .. } | NetworkError::NotPermitted { .. }) => return answer,
            Err(error) if error.is_carrier_trouble() => {
                assert!(tokio::time::Instant::now() < deadline, "{what} was never answered: {error}");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// Makes a `#[tokio::test]` of each rule of the [suite](crate::network::suite).
///
/// The argument is an expression that makes a fresh [`NetworkFixture`](crate::network::suite::NetworkFixture); it is
/// evaluated in each test and may `.await`. The calling crate needs tokio with `macros` and `rt-multi-thread`.
#[macro_export]
macro_rules! network_suite {
    ($fixture:expr) => {
        $crate::network_suite! { @rules $fixture;
            a_session_names_the_user_and_its_heads,
            a_fetch_brings_the_users_audiences_only,
            a_fetch_repeats_itself,
            pages_reach_every_record,
            accepted_records_are_numbered,
            a_repeated_batch_has_one_effect,
            repeated_records_in_another_batch_have_one_effect,
            a_device_behind_the_head_is_told_the_heads,
            own_uploads_leave_nobody_behind,
            a_foreign_audience_is_denied,
            a_false_audience_is_rejected,
            a_foreign_device_is_refused,
            an_id_with_other_content_is_rejected,
            a_malformed_record_is_rejected,
            another_epoch_is_told,
            a_clock_far_ahead_is_told,
            rows_follow_the_clocks_and_not_the_arrivals,
            a_correction_amends_its_action_and_keeps_later_writes,
            equal_corrections_are_one_record,
            a_snapshot_brings_the_rows_of_the_log,
            a_chunk_again_is_the_same,
            a_snapshot_is_one_moment_and_fetch_goes_on_from_it,
            a_foreign_audience_is_in_no_snapshot,
            a_snapshot_tells_which_own_records_it_holds,
            a_snapshot_tells_the_floor,
            an_unknown_snapshot_is_gone,
            a_digest_is_that_of_the_rows,
            a_snapshot_of_another_epoch_is_refused,
            a_subscriber_hears_of_a_commit,
            live_events_keep_to_the_users_audiences,
        }
    };
    (@rules $fixture:expr; $($rule:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let fixture = $fixture;
                $crate::network::suite::run(stringify!($rule), $crate::network::suite::$rule(&fixture)).await;
            }
        )*
    };
}
