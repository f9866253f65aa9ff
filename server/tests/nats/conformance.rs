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

synchrotron_core::network_suite!(Stack::start().await);
