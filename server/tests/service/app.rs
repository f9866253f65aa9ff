//! A whole device: an app's client with its SQLite file, talking to the service as over a carrier.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, ClientError, Timing};
use synchrotron_core::model::{AudienceKey, Columns, Value};
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::store::{Durability, Row};
use synchrotron_core::wire::{
    self, DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use synchrotron_server::auth::Principal;
use synchrotron_server::service::Service;
use tempfile::TempDir;

use crate::fixture::{Theatre, principal};

/// What a device's tables are like, beside the theatre's.
#[derive(Clone, Copy)]
pub(crate) struct Schema {
    pub(crate) sql: &'static str,
    pub(crate) tables: &'static [&'static str],
}

pub(crate) const THEATRE: Schema = Schema {
    sql: "CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, label TEXT, holder TEXT, audience_key TEXT NOT NULL);
          CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, owner TEXT, body TEXT,
              audience_key TEXT NOT NULL GENERATED ALWAYS AS ('user:' || owner) STORED);",
    tables: &["seats", "notes"],
};

/// Runs whatever statements a test wants run.
#[derive(Serialize, Deserialize)]
struct Run {
    statements: Vec<(String, Vec<Value>)>,
}

impl Action for Run {
    const TAG: &'static str = "run_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        self.statements.iter().try_for_each(|(sql, values)| ctx.execute(sql, values).map(drop))
    }
}

/// The service, with every answer through the wire's compressed form, and some answers lost.
#[derive(Debug)]
pub(crate) struct Direct {
    service: Service,
    principal: Principal,
    /// Every so many chunks, one is read by the server and lost on its way. 0: none.
    lose_every: u32,
    chunks: AtomicU32,
    begun: AtomicU32,
}

impl Direct {
    /// How many snapshots were begun.
    pub(crate) fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn chunks_lost(&self) -> u32 {
        self.chunks.load(Ordering::Relaxed).checked_div(self.lose_every).unwrap_or(0)
    }
}

fn carried<A: Serialize + DeserializeOwned>(answer: &A) -> Result<A, NetworkError> {
    Ok(wire::decode(&wire::encode_compressed(answer), 32 << 20)?)
}

#[async_trait]
impl Network for Direct {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        carried(&self.service.session(&self.principal, request.clone()).await?)
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        carried(&self.service.fetch(&self.principal, request.clone()).await?)
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        carried(&self.service.upload(&self.principal, batch.clone()).await)
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        if request.resume.is_none() {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        let chunk = self.service.snapshot(&self.principal, request.clone()).await?;
        let number = self.chunks.fetch_add(1, Ordering::Relaxed) + 1;
        if self.lose_every > 0 && number.is_multiple_of(self.lose_every) {
            return Err(NetworkError::Unavailable {
                carrier: Carrier::Memory,
                detail: "the answer was lost".to_owned(),
            });
        }
        carried(&chunk)
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        carried(&self.service.digest(&self.principal, request.clone()).await?)
    }

    async fn subscribe(&self, _audiences: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(None)
    }

    fn carrier(&self) -> Carrier {
        Carrier::Memory
    }
}

/// A user's app on a device of its own.
pub(crate) struct App {
    pub(crate) client: Client,
    pub(crate) network: Arc<Direct>,
    online: AtomicBool,
    _folder: TempDir,
}

impl Theatre {
    /// An app that syncs when it is told to, and now and then.
    pub(crate) async fn app(&self, user: &str, schema: Schema) -> App {
        self.app_that_loses(user, schema, 0).await
    }

    pub(crate) async fn app_that_loses(&self, user: &str, schema: Schema, lose_every: u32) -> App {
        let folder = tempfile::tempdir().expect("a folder");
        let mut builder = Client::builder()
            .database(folder.path().join("app.db"))
            .user(user)
            .schema(schema.sql)
            .action::<Run>()
            .durability(Durability::Normal)
            .timing(Timing {
                retry_first: Duration::from_millis(10),
                // Answers that get lost one after the other are no outage: a test does not wait for longer each time.
                retry_max: Duration::from_millis(100),
                ..Timing::default()
            });
        for table in schema.tables {
            builder = builder.table(Table::new(*table).given_ids());
        }
        let client = builder.open().await.expect("opens");
        let (service, principal) = (self.service.clone(), principal(user));
        let network =
            Arc::new(Direct { service, principal, lose_every, chunks: AtomicU32::new(0), begun: AtomicU32::new(0) });
        App { client, network, online: AtomicBool::new(false), _folder: folder }
    }
}

impl App {
    pub(crate) async fn run(&self, sql: &str, values: &[Value]) -> Result<(), ClientError> {
        self.run_all(vec![(sql.to_owned(), values.to_vec())]).await
    }

    /// All in one action.
    pub(crate) async fn run_all(&self, statements: Vec<(String, Vec<Value>)>) -> Result<(), ClientError> {
        self.client.execute(Run { statements }).await.map(drop)
    }

    pub(crate) fn go_online(&self) {
        if !self.online.swap(true, Ordering::Relaxed) {
            self.client.go_online(Arc::<Direct>::clone(&self.network));
        }
    }

    /// One pass, which must come through.
    pub(crate) async fn sync(&self) {
        self.go_online();
        self.client.sync_now().await.expect("a pass");
    }

    pub(crate) async fn rows(&self, sql: &str) -> Vec<Columns> {
        self.client.query(sql, &[]).await.expect("reads").into_iter().map(|row: Row| row.columns()).collect()
    }

    pub(crate) async fn count(&self, table: &str) -> usize {
        self.rows(&format!("SELECT 1 AS one FROM {table}")).await.len()
    }

    /// That history and rows are sound here, and equal to the server's.
    pub(crate) async fn assert_equal_to_the_server(&self) {
        let compared = self.client.compare_with(&*self.network).await.expect("compares");
        assert!(compared.different.is_empty() && compared.moved_on.is_empty(), "{compared:?}");
        assert!(!compared.equal.is_empty());
        assert!(self.client.check().await.expect("checks").is_sound());
    }
}
