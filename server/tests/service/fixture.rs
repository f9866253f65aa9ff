//! A database with the theatre's tables, a service on it, and devices of its users.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx_core::executor::Executor;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgPool, PgPoolOptions};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionTag, AudienceKey, BatchId, ClientId, Columns, Cursors, Effect, Hlc, Patch, RecordBody,
    ReplayKey, RowId, ServerIngestId, TableName, UserId, Value,
};
use synchrotron_core::wire::{
    FetchPage, FetchRequest, LogRecord, Outcome, RejectionKind, Session, SessionRequest, UploadBatch, UploadRecord,
};
use synchrotron_server::auth::Principal;
use synchrotron_server::service::Service;
use synchrotron_server::settings::Settings;
use synchrotron_testkit::Postgres;
use uuid::Uuid;

/// A database of one test and a service on it.
pub(crate) struct Theatre {
    pub(crate) service: Service,
    /// As the superuser.
    pub(crate) pool: PgPool,
}

impl Theatre {
    pub(crate) async fn open() -> Self {
        Self::open_with("", &[], |_| {}).await
    }

    /// With more tables, and settings changed.
    pub(crate) async fn open_with(sql: &str, more: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        Self::open_on(shared().await, sql, more, change).await
    }

    /// On a Postgres of the test's own.
    pub(crate) async fn open_on(
        postgres: &Postgres,
        sql: &str,
        more: &[&str],
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let url = postgres.create_database("service").await.expect("a database");
        Self::open_at(url, sql, more, change).await
    }

    /// On a database that sorts texts by the rules of ICU.
    pub(crate) async fn open_icu(sql: &str, more: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let url = shared().await.create_icu_database("service_icu").await.expect("a database");
        Self::open_at(url, sql, more, change).await
    }

    async fn open_at(url: String, sql: &str, more: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        furnish(&url, sql).await;
        let tables = ["seats", "notes"].iter().chain(more).map(|name| TableName::new(*name).expect("a name"));
        let mut settings = Settings::new(url.clone(), tables.collect(), b"a secret of these tests".as_slice());
        change(&mut settings);
        let service = Service::connect(&settings).await.expect("the service starts");
        let pool = PgPoolOptions::new().max_connections(4).connect(&url).await.expect("connects");
        Self { service, pool }
    }

    pub(crate) fn device(&self, user: &str) -> Device {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Device {
            service: self.service.clone(),
            principal: principal(user),
            client_id: ClientId::from_uuid(Uuid::from_u128(number.into())),
            cursors: Cursors::new(),
            clock: Arc::new(AtomicU32::new(0)),
        }
    }

    pub(crate) async fn execute(&self, sql: &str) {
        self.pool.execute(AssertSqlSafe(sql)).await.expect("executes");
    }

    /// The one value of a query, as text.
    pub(crate) async fn scalar(&self, sql: &str) -> Option<String> {
        let found =
            sqlx_core::query_scalar::query_scalar::<sqlx_postgres::Postgres, Option<String>>(AssertSqlSafe(sql));
        found.fetch_optional(&self.pool).await.expect("reads").flatten()
    }

    pub(crate) async fn count(&self, what: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {what}");
        sqlx_core::query_scalar::query_scalar::<sqlx_postgres::Postgres, i64>(AssertSqlSafe(sql))
            .fetch_one(&self.pool)
            .await
            .expect("counts")
    }

    pub(crate) async fn holder(&self, seat: &str) -> Option<String> {
        self.scalar(&format!("SELECT holder FROM seats WHERE id = '{seat}'")).await
    }

    /// That nothing of any upload is anywhere.
    pub(crate) async fn assert_untouched(&self) {
        for table in ["action_records", "action_modified_rows", "action_audiences", "outbox"] {
            assert_eq!(self.count(&format!("synchrotron.{table}")).await, 0, "{table}");
        }
        for table in ["seats", "notes"] {
            assert_eq!(self.count(table).await, 0, "{table}");
        }
    }
}

/// An empty database with the theatre's schema and `sql`.
pub(crate) async fn create_database(sql: &str) -> String {
    let url = shared().await.create_database("service").await.expect("a database");
    furnish(&url, sql).await;
    url
}

async fn shared() -> &'static Postgres {
    synchrotron_testkit::postgres().await.expect("postgres")
}

async fn furnish(url: &str, sql: &str) {
    let pool = PgPoolOptions::new().max_connections(1).connect(url).await.expect("connects");
    pool.execute(include_str!("schema.sql")).await.expect("the schema");
    pool.execute(AssertSqlSafe(sql)).await.expect("more of the schema");
    pool.close().await;
}

pub(crate) fn principal(user: &str) -> Principal {
    Principal { user_id: UserId::new(user).expect("a user"), expires_at: None }
}

/// A device that says whatever a test wants it to say.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) service: Service,
    pub(crate) principal: Principal,
    pub(crate) client_id: ClientId,
    pub(crate) cursors: Cursors,
    clock: Arc<AtomicU32>,
}

impl Device {
    pub(crate) async fn session(&self) -> Session {
        let request = SessionRequest { client_id: self.client_id };
        self.service.session(&self.principal, request).await.expect("a session")
    }

    /// An action at this time, in milliseconds.
    pub(crate) fn action(&self, at: i64, rows: Vec<Patch>) -> UploadRecord {
        let body = RecordBody::Action {
            tag: ActionTag::new("do_it_v1").expect("a tag"),
            args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
        };
        UploadRecord { id: action_id(), clock: Hlc::at_millis(at), body, rows: numbered(rows), trace_parent: None }
    }

    /// A correction of an action of this or another device.
    pub(crate) fn correction(&self, amends: ReplayKey, rows: Vec<Patch>) -> UploadRecord {
        let tick = self.clock.fetch_add(1, Ordering::Relaxed);
        let body = RecordBody::Correction { amends, reason: Some("the seat is taken".to_owned()) };
        UploadRecord {
            id: action_id(),
            clock: Hlc::at_millis(1_000_000 + i64::from(tick)),
            body,
            rows: numbered(rows),
            trace_parent: None,
        }
    }

    pub(crate) fn position(&self, record: &UploadRecord) -> ReplayKey {
        ReplayKey { clock: record.clock, client_id: self.client_id, action_id: record.id }
    }

    pub(crate) async fn batch(&self, records: Vec<UploadRecord>) -> UploadBatch {
        let epoch = self.session().await.epoch;
        let batch_id = BatchId::from_uuid(Uuid::new_v4());
        UploadBatch { batch_id, client_id: self.client_id, epoch, basis: self.cursors.clone(), records }
    }

    pub(crate) async fn upload(&self, records: Vec<UploadRecord>) -> Outcome {
        let batch = self.batch(records).await;
        self.send(&batch).await
    }

    pub(crate) async fn send(&self, batch: &UploadBatch) -> Outcome {
        self.service.upload(&self.principal, batch.clone()).await
    }

    /// Fetches everything, then uploads, which must be accepted.
    pub(crate) async fn sync(&mut self, records: Vec<UploadRecord>) -> BTreeMap<ActionId, ServerIngestId> {
        self.catch_up().await;
        accepted(self.upload(records).await)
    }

    /// Fetches everything after the cursors, and moves them.
    pub(crate) async fn catch_up(&mut self) -> Vec<LogRecord> {
        let mut records = Vec::new();
        loop {
            let page = self.page().await;
            self.cursors = page.cursors;
            records.extend(page.records);
            if !page.more {
                return records;
            }
        }
    }

    pub(crate) async fn page(&self) -> FetchPage {
        let epoch = self.session().await.epoch;
        let request = FetchRequest { client_id: self.client_id, epoch, cursors: self.cursors.clone() };
        self.service.fetch(&self.principal, request).await.expect("a page")
    }
}

pub(crate) fn accepted(outcome: Outcome) -> BTreeMap<ActionId, ServerIngestId> {
    match outcome {
        Outcome::Accepted { ids } => ids,
        other => panic!("not accepted: {other:?}"),
    }
}

pub(crate) fn rejected(outcome: Outcome) -> (RejectionKind, String) {
    match outcome {
        Outcome::Rejected { kind, reason, .. } => (kind, reason),
        other => panic!("not rejected: {other:?}"),
    }
}

pub(crate) fn action_id() -> ActionId {
    ActionId::from_uuid(Uuid::now_v7())
}

fn numbered(mut rows: Vec<Patch>) -> Vec<Patch> {
    for (sequence, row) in (0..).zip(&mut rows) {
        row.sequence = sequence;
    }
    rows
}

pub(crate) fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("a key")
}

pub(crate) fn columns<const N: usize>(pairs: [(&str, Value); N]) -> Columns {
    pairs.map(|(name, value)| (name.to_owned(), value)).into()
}

pub(crate) fn patch(table: &str, row: &str, key: &str, effect: Effect) -> Patch {
    Patch {
        sequence: 0,
        table: TableName::new(table).expect("a table"),
        row_id: RowId::new(row).expect("a row"),
        audience_key: audience(key),
        effect,
    }
}

/// A seat of project p comes to be.
pub(crate) fn seat(row: &str) -> Patch {
    patch("seats", row, "project:p", Effect::Insert(columns([("label", row.into()), ("holder", Value::Null)])))
}

/// A seat of project p gets a holder, or none.
pub(crate) fn hold(row: &str, holder: Option<&str>) -> Patch {
    let holder = holder.map(str::to_owned);
    patch("seats", row, "project:p", Effect::Update(columns([("holder", holder.into())])))
}

/// A seat of project p goes away.
pub(crate) fn remove(row: &str) -> Patch {
    patch("seats", row, "project:p", Effect::Delete)
}

/// A user's private note.
pub(crate) fn note(row: &str, owner: &str) -> Patch {
    let values = columns([("owner", owner.into()), ("body", "b".into())]);
    patch("notes", row, &format!("user:{owner}"), Effect::Insert(values))
}
