//! Whole clients, with a network that calls the service in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Table};
use synchrotron_core::client::{Client, Timing};
use synchrotron_core::model::AudienceKey;
use synchrotron_core::network::{Carrier, Ingress, Network, NetworkError};
use synchrotron_core::store::Durability;
use synchrotron_core::wire::{
    DigestReply, DigestRequest, FetchPage, FetchRequest, Outcome, Session, SessionRequest, SnapshotChunk,
    SnapshotRequest, UploadBatch,
};
use synchrotron_server::auth::Principal;
use synchrotron_server::service::Service;

use crate::fixture::principal;

const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS seats (id TEXT PRIMARY KEY, label TEXT, holder TEXT, audience_key TEXT NOT NULL)";
const DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct InProcess {
    service: Service,
    principal: Principal,
}

#[async_trait]
impl Network for InProcess {
    async fn session(&self, request: &SessionRequest) -> Result<Session, NetworkError> {
        Ok(self.service.session(&self.principal, request.clone()).await?)
    }

    async fn fetch(&self, request: &FetchRequest) -> Result<FetchPage, NetworkError> {
        Ok(self.service.fetch(&self.principal, request.clone()).await?)
    }

    async fn upload(&self, batch: &UploadBatch) -> Result<Outcome, NetworkError> {
        Ok(self.service.upload(&self.principal, batch.clone()).await)
    }

    async fn snapshot(&self, request: &SnapshotRequest) -> Result<SnapshotChunk, NetworkError> {
        Ok(self.service.snapshot(&self.principal, request.clone()).await?)
    }

    async fn digest(&self, request: &DigestRequest) -> Result<DigestReply, NetworkError> {
        Ok(self.service.digest(&self.principal, request.clone()).await?)
    }

    async fn subscribe(&self, _: &[AudienceKey]) -> Result<Option<BoxStream<'static, Ingress>>, NetworkError> {
        Ok(None)
    }

    fn carrier(&self) -> Carrier {
        Carrier::Http
    }
}

/// A seat of project p comes to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PutSeat {
    pub(crate) seat: String,
}

impl Action for PutSeat {
    const TAG: &'static str = "put_seat_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let put = "INSERT INTO seats VALUES (?, 'seat', NULL, 'project:p') ON CONFLICT (id) DO NOTHING";
        ctx.execute(put, &[self.seat.as_str().into()]).map(drop)
    }
}

/// A free seat gets a holder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Book {
    pub(crate) seat: String,
    pub(crate) holder: String,
}

impl Action for Book {
    const TAG: &'static str = "book_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let book = "UPDATE seats SET holder = ? WHERE id = ? AND holder IS NULL";
        ctx.execute(book, &[self.holder.as_str().into(), self.seat.as_str().into()]).map(drop)
    }
}

/// An app on one device.
pub(crate) struct App {
    pub(crate) client: Client,
    user: &'static str,
}

impl App {
    pub(crate) async fn open(folder: &Path, user: &'static str) -> Self {
        let timing = Timing { retry_first: Duration::from_millis(10), ..Timing::default() };
        let opened = Client::builder()
            .database(folder.join(format!("{user}.db")))
            .user(user)
            .schema(SCHEMA)
            .table(Table::new("seats").given_ids())
            .action::<PutSeat>()
            .action::<Book>()
            .durability(Durability::Normal)
            .timing(timing)
            .open();
        Self { client: opened.await.expect("opens"), user }
    }

    pub(crate) async fn put(&self, seat: &str) {
        self.client.execute(PutSeat { seat: seat.to_owned() }).await.expect("runs");
    }

    pub(crate) async fn book(&self, seat: &str) {
        let book = Book { seat: seat.to_owned(), holder: self.user.to_owned() };
        self.client.execute(book).await.expect("runs");
    }

    /// Syncs with this service, and goes offline again.
    pub(crate) async fn sync(&self, service: &Service) {
        self.client.go_online(Arc::new(InProcess { service: service.clone(), principal: principal(self.user) }));
        // A pass that meets another history, or a compaction, fails; the next one recovers.
        let synced =
            synchrotron_testkit::wait_for("a pass that works", DEADLINE, async || self.client.sync_now().await.ok());
        synced.await.expect("syncs");
        self.client.go_offline();
    }

    /// Each seat with its holder.
    pub(crate) async fn seats(&self) -> String {
        let sql = "SELECT group_concat(seat, ' ') AS seats FROM \
            (SELECT id || ':' || coalesce(holder, '-') AS seat FROM seats ORDER BY id)";
        let rows = self.client.query(sql, &[]).await.expect("reads");
        rows[0].get::<Option<String>>("seats").expect("text").unwrap_or_default()
    }

    pub(crate) fn pending(&self) -> u64 {
        self.client.status().borrow().pending
    }

    /// That the rows here are those of this service.
    pub(crate) async fn assert_equal(&self, service: &Service) {
        let network = InProcess { service: service.clone(), principal: principal(self.user) };
        let comparison = self.client.compare_with(&network).await.expect("compares");
        assert!(comparison.different.is_empty() && !comparison.equal.is_empty(), "{}: {comparison:?}", self.user);
    }
}
