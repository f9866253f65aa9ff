//! A durable Postgres, a service on a database of its own, and devices that upload to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx_core::connection::Connection;
use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgPool, PgPoolOptions};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursor, Cursors, Effect, Epoch, Hlc,
    Patch, RecordBody, RowId, TableName, UserId,
};
use synchrotron_core::wire::{Outcome, SessionRequest, UploadBatch, UploadRecord};
use synchrotron_server::auth::Principal;
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;
use synchrotron_testkit::{Durability, Postgres};
use uuid::Uuid;

use crate::error::BenchError;

/// A place to measure in.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) service: Service,
    /// As the superuser, for floors and for filling tables.
    pub(super) pool: PgPool,
    epoch: Epoch,
    // Last: what uses it ends first.
    postgres: Arc<Postgres>,
}

impl Stage {
    pub(super) async fn open() -> Result<Self, BenchError> {
        let postgres = Arc::new(Postgres::start_with(Durability::PowerCut).await?);
        let url = postgres.create_database("bench").await?;
        Self::on(postgres, url).await
    }

    /// Another on the same Postgres, where a commit waits so much longer for the disk.
    pub(super) async fn with_slow_syncs(&self, longer: Duration) -> Result<Self, BenchError> {
        let url = self.postgres.create_database("slow").await?;
        let micros = longer.as_micros();
        // Whoever comes first to sync the log waits, and syncs for all who came meanwhile, as on a slow disk. Sessions that
        // begin now do so, whatever else there is to do.
        let slow = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET commit_delay = {micros}', current_database()); \
             EXECUTE format('ALTER DATABASE %I SET commit_siblings = 0', current_database()); END $$"
        );
        // Safe: a number in words of ours.
        PgConnection::connect(&url).await?.execute(AssertSqlSafe(slow)).await?;
        Self::on(Arc::clone(&self.postgres), url).await
    }

    /// On a database that is empty.
    async fn on(postgres: Arc<Postgres>, url: String) -> Result<Self, BenchError> {
        let pool = PgPoolOptions::new().max_connections(32).connect(&url).await?;
        pool.execute(include_str!("schema.sql")).await?;
        let tables = vec![table()];
        let mut settings = Settings::new(url, tables, b"a secret of the benchmarks".as_slice());
        settings.max_upload_bytes = 64 << 20;
        let service = Service::connect(&settings).await?;
        pool.execute(super::floor::TABLES).await?;
        pool.execute("GRANT SELECT ON members TO synchrotron_user").await?;
        let probe = Principal { user_id: UserId::new("probe").expect("BUG: a name"), expires_at: None };
        let request = SessionRequest { client_id: ClientId::from_uuid(Uuid::now_v7()) };
        let epoch = service.session(&probe, request).await?.epoch;
        Ok(Self { service, pool, epoch, postgres })
    }

    /// Statements of the benchmarks' own text, run as the superuser.
    pub(super) async fn execute(&self, sql: String) -> Result<(), BenchError> {
        // Safe: written in this program.
        self.pool.execute(AssertSqlSafe(sql)).await?;
        Ok(())
    }

    /// A device of a user who is alone in an audience of the same name.
    pub(super) async fn device(&self, user: &str) -> Result<Device, BenchError> {
        self.execute(format!("INSERT INTO members VALUES ('{user}', 'user:{user}') ON CONFLICT DO NOTHING")).await?;
        let device = Device {
            service: self.service.clone(),
            principal: Principal { user_id: UserId::new(user).expect("BUG: a name"), expires_at: None },
            client_id: ClientId::from_uuid(Uuid::now_v7()),
            epoch: self.epoch,
            audience_key: AudienceKey::new(format!("user:{user}")).expect("BUG: a key"),
            basis: Cursors::new(),
        };
        device.service.session(&device.principal, SessionRequest { client_id: device.client_id }).await?;
        Ok(device)
    }
}

/// The tracked table.
pub(super) fn table() -> TableName {
    TableName::new("items").expect("BUG: a name")
}

/// A device that uploads.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) service: Service,
    pub(super) principal: Principal,
    pub(super) client_id: ClientId,
    pub(super) epoch: Epoch,
    pub(super) audience_key: AudienceKey,
    basis: Cursors,
}

impl Device {
    /// An action that inserts one row, at a time.
    pub(super) fn insert(&self, at_ms: i64) -> UploadRecord {
        let id = Uuid::now_v7();
        let columns =
            Columns::from([("title".to_owned(), format!("item {id}").into()), ("count".to_owned(), 1_i64.into())]);
        self.action(id, at_ms, &id.to_string(), Effect::Insert(columns))
    }

    /// An action that has one effect.
    pub(super) fn action(&self, id: Uuid, at_ms: i64, row: &str, effect: Effect) -> UploadRecord {
        let args = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("title", row)]));
        let args = args.expect("BUG: a map of texts");
        UploadRecord {
            id: ActionId::from_uuid(id),
            trace_parent: None,
            clock: Hlc::at_millis(at_ms).tick(0),
            body: RecordBody::Action {
                tag: ActionTag::new("add_item_v1").expect("BUG: a tag"),
                args: ActionArgs::from_encoded(args).expect("BUG: a map"),
            },
            rows: vec![Patch {
                sequence: 0,
                table: table(),
                row_id: RowId::new(row).expect("BUG: an id"),
                audience_key: self.audience_key.clone(),
                effect,
            }],
        }
    }

    pub(super) fn batch(&self, records: Vec<UploadRecord>) -> UploadBatch {
        UploadBatch {
            batch_id: BatchId::from_uuid(Uuid::now_v7()),
            client_id: self.client_id,
            epoch: self.epoch,
            basis: self.basis.clone(),
            records,
        }
    }

    /// Uploads and waits for the commit; the device then has seen its own records, as by their slice.
    pub(super) async fn upload(&mut self, records: Vec<UploadRecord>) -> Result<(), BenchError> {
        let batch = self.batch(records);
        match self.service.upload(&self.principal, batch).await {
            Outcome::Accepted { ids } => {
                let through = ids.values().map(|number| number.get()).max().unwrap_or_default();
                self.basis.insert(self.audience_key.clone(), Cursor::new(through));
                Ok(())
            }
            other => Err(BenchError::NotAccepted(other)),
        }
    }
}

/// A time after every time that was given before.
pub(super) fn next_ms() -> i64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000_000);
    i64::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).expect("BUG: few are given")
}

/// Devices of users of their own.
pub(super) async fn devices(stage: &Stage, prefix: &str, count: u32) -> Result<Vec<Device>, BenchError> {
    let mut devices = Vec::new();
    for number in 0..count {
        devices.push(stage.device(&format!("{prefix}{number}")).await?);
    }
    Ok(devices)
}
