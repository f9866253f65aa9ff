//! The async shell around the engine: what an app holds.
//!
//! Place in the journey: both ends. [`Client::execute`] starts it; [`Client::changes`] is where another device's app
//! sees the result. The shell owns the only clock, the only randomness and the only tasks; decisions are the engine's.
//!
//! | an app wants to | |
//! |---|---|
//! | change something | [`Client::execute`]; its fate by the [`Execution`], or by [`Client::fates`] after a restart |
//! | show something | [`Client::query`], [`Client::live_query`], [`Client::watch`], [`Client::changes`] |
//! | sync | [`Client::go_online`], [`Client::go_offline`], [`Client::sync_now`], [`Client::status`] |
//! | deal with what was refused | [`Client::quarantined`], and retry, discard or export it |
//!
//! # Several processes on one database
//!
//! Any number of processes may open one file: an app and its share extension, a command-line tool beside a daemon. All of
//! them execute and query. Of those that are online, one syncs: it holds a lock on `<database>.sync`. The others show
//! [`Connection::Following`], and one of them takes over when it is gone, however it went. What one process commits, the
//! others notice within [`Timing::elsewhere`] and tell as [`Change::Elsewhere`]; live queries and [`Execution::confirmed`]
//! follow by themselves.
//!
//! # Invariants
//! - What a step commits is in the change feed, also if its caller gave up waiting.
//! - Queries have connections of their own: they wait for no action and no sync, and these wait for no query.

mod backoff;
mod builder;
mod carrier;
mod driver;
mod elsewhere;
mod error;
mod exchange;
mod execution;
mod feed;
mod installation;
mod leadership;
mod live;
mod outcomes;
mod patience;
mod recovery;
mod session;
mod shared;
mod slot;
mod status;
mod trace;
mod upload;

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::{broadcast, oneshot, watch};
use uuid::Uuid;

pub use builder::{ClientBuilder, Timing};
pub use error::{ClientError, OpenError, SyncError};
pub use execution::Execution;
pub use feed::{Change, Watch};
pub use live::LiveQuery;
pub use recovery::Comparison;
pub use status::{Connection, FailedPass, Progress, Status};

use self::shared::Shared;
use self::slot::DriverSlot;
use crate::action::Action;
pub use crate::engine::Held;
use crate::engine::{Engine, ExecuteInput};
use crate::model::{ActionId, ClientId, TableName, UserId, Value};
use crate::network::Network;
use crate::store::{Row, SqliteStore};

/// One device's database, and its connection to the others. Cheap to clone.
///
/// It is whole while offline: actions run at once, on local rows, and are kept. [`Self::go_online`] syncs them.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    driver: Arc<DriverSlot>,
}

impl Client {
    /// Begins an app's set-up.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// This device.
    #[must_use]
    pub fn client_id(&self) -> ClientId {
        self.shared.client_id
    }

    /// Whose data this is.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.shared.user_id
    }

    /// Runs an action on the local rows, online or not. When this returns `Ok`, the action is kept, and ends as
    /// confirmed, changed or rejected: see [`Execution::confirmed`].
    ///
    /// # Errors
    /// [`ClientError::Execute`]: the app's rule said no, or the action could not be kept; nothing of it stays.
    pub async fn execute<A: Action>(&self, action: A) -> Result<Execution<A::Output>, ClientError> {
        let action_id = ActionId::from_uuid(Uuid::now_v7());
        let feed = self.shared.changes.subscribe();
        let shared = Arc::clone(&self.shared);
        // Asked here: the task that calls is in the trace, the thread that runs the action is not.
        let trace_parent = self.shared.trace_context.current();
        let shown = trace_parent.map(tracing::field::display);
        let span = tracing::debug_span!("execute", %action_id, tag = A::TAG, trace_parent = shown);
        let output = self
            .blocking(move |engine| {
                let _execute = span.entered();
                let input = ExecuteInput { action_id, now_ms: driver::now_ms(), trace_parent };
                let executed = engine.execute(&action, input)?;
                // Told here, so that an app that no longer waits for its output still sees the row, and syncs it.
                shared.publish(executed.committed);
                shared.status.send_modify(|status| status.pending += 1);
                shared.work.notify_one();
                Ok(executed.output)
            })
            .await?;
        Ok(Execution::new(action_id, output, self.clone(), feed))
    }

    /// Syncs with this network from now on, in the background, until [`Self::go_offline`] or the last clone is dropped.
    /// A network that was used before is left. Must be called within a tokio runtime.
    pub fn go_online(&self, network: Arc<dyn Network>) {
        self.driver.start(&self.shared, network);
    }

    /// Stops syncing. Local work goes on.
    pub fn go_offline(&self) {
        self.driver.stop();
        self.shared.status.send_modify(|status| status.connection = Connection::Offline);
    }

    /// Fetches and uploads now, and waits until both are done: then this device has everything that the server had, and
    /// nothing is pending but what was executed meanwhile. Requests made at the same time share one pass.
    ///
    /// # Errors
    /// [`ClientError::Offline`] if there is no network; [`ClientError::Sync`] if the pass failed, and the driver goes on;
    /// [`SyncError::Following`] in it if another process syncs this database, [`SyncError::Held`] if all is synced but what
    /// the server's schema cannot take yet.
    pub async fn sync_now(&self) -> Result<(), ClientError> {
        let requests = self.driver.requests().ok_or(ClientError::Offline)?;
        let (reply, done) = oneshot::channel();
        requests.send(reply).map_err(|_| ClientError::Offline)?;
        Ok(done.await.map_err(|_| ClientError::Offline)??)
    }

    /// The change feed: one event per committed step, with the rows it touched and the fates it decided. A reader that
    /// falls far behind is told how many it missed, and should read the rows again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.shared.changes.subscribe()
    }

    /// Yields when a commit touches a row of one of these tables; commits in quick succession are one item.
    ///
    /// ```
    /// # use synchrotron_core::client::{Client, ClientError};
    /// # async fn show(client: Client) -> Result<(), ClientError> {
    /// let mut touched = client.watch(["seats", "notes"])?;
    /// while touched.next().await.is_some() {
    ///     let free = client.query("SELECT count(*) AS free FROM seats WHERE holder IS NULL", &[]).await?;
    ///     println!("{:?}", free[0].get::<i64>("free"));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NotTracked`] names a table that is not synced, such as a view: use [`Self::live_query`] there.
    pub fn watch<T: Into<String>>(&self, tables: impl IntoIterator<Item = T>) -> Result<Watch, ClientError> {
        let tracked = |table: String| match TableName::new(table.as_str()) {
            Ok(name) if self.shared.tables.contains(&name) => Ok(name),
            _ => Err(ClientError::NotTracked { table }),
        };
        let tables: BTreeSet<_> = tables.into_iter().map(|table| tracked(table.into())).collect::<Result<_, _>>()?;
        Ok(Watch::new(self.changes(), tables))
    }

    /// The rows of a read-only query: now, and again after each commit that changes them.
    ///
    /// The query runs again only after commits that touch a table that it reads, also through views, and also a table
    /// that triggers keep up to date, such as a full-text index. It is compared as a whole: say `ORDER BY`, and `LIMIT`.
    ///
    /// ```
    /// # use synchrotron_core::{client::{Client, ClientError}, params};
    /// # async fn show(client: Client) -> Result<(), ClientError> {
    /// let mut free = client.live_query("SELECT id FROM seats WHERE holder IS NULL ORDER BY id LIMIT 50", params![]);
    /// while let Some(seats) = free.next().await {
    ///     for seat in seats? {
    ///         println!("{:?}", seat.get::<String>("id"));
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn live_query(&self, sql: impl Into<String>, params: &[Value]) -> LiveQuery {
        LiveQuery::new(&self.shared, sql.into(), params.to_vec())
    }

    /// The sync status, always the newest.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }

    /// Runs a read-only query on the newest commit, on a connection of its own.
    ///
    /// # Errors
    /// [`ClientError::Sql`] with SQLite's own reason.
    pub async fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, ClientError> {
        let (sql, params) = (sql.to_owned(), params.to_vec());
        self.shared.reading(move |reader| reader.query(&sql, &params)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Engine<SqliteStore>) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        self.shared.blocking(step).await
    }
}
