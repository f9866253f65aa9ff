//! What every network owes a device.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx_core::connection::Connection;
use sqlx_core::query::query;
use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{AudienceKey, ClientId, Columns, RowKey, UserId, Value};
use synchrotron_core::network::suite::NetworkFixture;
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_http::media::Media;

use crate::api::Api;

#[async_trait]
impl NetworkFixture for Api {
    async fn connect(&self, user: &UserId, _client_id: ClientId) -> Result<Arc<dyn Network>, NetworkError> {
        Ok(Arc::new(self.network(user.as_str())))
    }

    async fn allow(&self, user: &UserId, audience: &AudienceKey) {
        let mut connection = PgConnection::connect(&self.database).await.expect("connects");
        query("INSERT INTO members VALUES ($1, $2) ON CONFLICT DO NOTHING")
            .bind(user.as_str())
            .bind(audience.as_str())
            .execute(&mut connection)
            .await
            .expect("inserts");
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
        let columns: BTreeMap<String, Option<String>> = serde_json::from_str(&text?).expect("texts");
        Some(columns.into_iter().map(|(name, text)| (name, text.map_or(Value::Null, Value::from))).collect())
    }
}

async fn roomy() -> Api {
    Api::start_with(|settings| (settings.max_upload_bytes, settings.max_record_bytes) = (8 << 20, 4 << 20)).await
}

synchrotron_core::network_suite!(roomy().await);

/// The same server, spoken to in JSON.
mod json {
    use super::{Media, roomy};
    use crate::api::Api;

    synchrotron_core::network_suite!(Api { media: Media::Json, ..roomy().await });
}
