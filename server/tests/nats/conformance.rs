//! What every network owes a device.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx_core::connection::Connection;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{AudienceKey, ClientId, Columns, RowKey, UserId, Value};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Network, NetworkError};

use crate::stack::{Stack, token};

#[async_trait]
impl NetworkFixture for Stack {
    async fn connect(&self, user: &UserId, client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
        let network = self.network(user.as_str(), client_id, token(user.as_str(), 3_600)).await;
        let mut connected = network.connected();
        let connecting = tokio::time::timeout(Duration::from_secs(10), connected.wait_for(|connected| *connected));
        assert!(connecting.await.is_ok(), "NATS is there");
        Ok(Arc::new(network))
    }

    async fn allow(&self, user: &UserId, audience: &AudienceKey) {
        Self::allow(self, user.as_str(), audience.as_str()).await;
    }

    async fn server_row(&self, row: &RowKey) -> Option<Columns> {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        let table = row.table.as_str();
        assert!(["notes", "seats"].contains(&table));
        let sql = format!("SELECT (to_jsonb(t) - 'id' - 'audience_key')::text FROM {table} t WHERE id = $1");
        let text: Option<String> = query_scalar::<Postgres, _>(AssertSqlSafe(sql))
            .bind(row.row_id.as_str())
            .fetch_optional(&mut connection)
            .await
            .expect("reads");
        let columns: std::collections::BTreeMap<String, Option<String>> = serde_json::from_str(&text?).expect("texts");
        Some(columns.into_iter().map(|(name, text)| (name, text.map_or(Value::Null, Value::from))).collect())
    }
}

// All rules but `live_events_keep_to_the_users_audiences`: who may subscribe to what is for NATS to enforce, by
// permissions that are not given out yet.
synchrotron_core::network_suite! { @rules Stack::start().await;
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
}
