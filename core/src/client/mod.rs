//! The async shell around the engine: what an app holds.
//!
//! Place in the journey: both ends. [`Client::execute`] starts it; [`Client::changes`] is where another device's app
//! sees the result. The shell owns the only clock, the only randomness and the only tasks; decisions are the engine's.

mod backoff;
mod builder;
mod driver;
mod error;
mod execution;
mod status;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use uuid::Uuid;

pub use builder::{ClientBuilder, Timing};
pub use error::{ClientError, OpenError, SyncError};
pub use execution::Execution;
pub use status::{Connection, Status};

use crate::action::Action;
use crate::engine::{Committed, Engine, EngineError, ExecuteInput};
use crate::model::{ActionId, ClientId, UserId, Value};
use crate::network::Network;
use crate::store::{Fate, Quarantined, Reader, Row, SqlError, SqliteStore};

/// How many commits a slow reader of the change feed may fall behind before it is told so.
const CHANGES_BUFFERED: usize = 1024;

/// One device's database, and its connection to the others. Cheap to clone.
///
/// It is whole while offline: actions run at once, on local rows, and are kept. [`Self::go_online`] syncs them.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    driver: Arc<DriverSlot>,
}

/// What the client and its driver share.
#[derive(Debug)]
struct Shared {
    engine: Mutex<Engine<SqliteStore>>,
    readers: Mutex<Vec<Reader>>,
    path: PathBuf,
    client_id: ClientId,
    user_id: UserId,
    timing: Timing,
    changes: broadcast::Sender<Arc<Committed>>,
    status: watch::Sender<Status>,
    work: Notify,
}

/// The running driver, if any. It ends with the last clone of the client.
#[derive(Debug, Default)]
struct DriverSlot(Mutex<Option<(AbortHandle, mpsc::Sender<SyncRequest>)>>);

type SyncRequest = oneshot::Sender<Result<(), SyncError>>;

impl Drop for DriverSlot {
    fn drop(&mut self) {
        self.stop();
    }
}

impl DriverSlot {
    fn stop(&self) {
        if let Some((driver, _)) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            driver.abort();
        }
    }

    fn requests(&self) -> Option<mpsc::Sender<SyncRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|(_, requests)| requests.clone())
    }
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
        let executed = self
            .blocking(move |engine| {
                let input = ExecuteInput { action_id, now_ms: driver::now_ms() };
                Ok(engine.execute(&action, input)?)
            })
            .await?;
        self.shared.publish(executed.committed);
        self.shared.status.send_modify(|status| status.pending += 1);
        self.shared.work.notify_one();
        Ok(Execution::new(action_id, executed.output, self.clone(), feed))
    }

    /// Syncs with this network from now on, in the background, until [`Self::go_offline`] or the last clone is dropped.
    /// A network that was used before is left. Must be called within a tokio runtime.
    pub fn go_online(&self, network: Arc<dyn Network>) {
        self.driver.stop();
        let (requests, inbox) = mpsc::channel(64);
        let driver = tokio::spawn(driver::run(Arc::clone(&self.shared), network, inbox));
        *self.driver.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((driver.abort_handle(), requests));
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
    /// [`ClientError::Offline`] if there is no network, [`ClientError::Sync`] if the pass failed; the driver goes on.
    pub async fn sync_now(&self) -> Result<(), ClientError> {
        let requests = self.driver.requests().ok_or(ClientError::Offline)?;
        let (reply, done) = oneshot::channel();
        requests.send(reply).await.map_err(|_| ClientError::Offline)?;
        Ok(done.await.map_err(|_| ClientError::Offline)??)
    }

    /// The change feed: one event per committed step, with the rows it touched and the fates it decided. A reader that
    /// falls far behind is told how many it missed, and should read the rows again.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Committed>> {
        self.shared.changes.subscribe()
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
        let (shared, sql, params) = (Arc::clone(&self.shared), sql.to_owned(), params.to_vec());
        joined(tokio::task::spawn_blocking(move || shared.query(&sql, &params)).await)?.map_err(ClientError::Sql)
    }

    /// What became of an action that was executed here, also in an earlier run of the app; `None` while it is pending.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn fate(&self, action: ActionId) -> Result<Option<Fate>, ClientError> {
        self.blocking(move |engine| Ok(engine.fate(action)?)).await
    }

    /// Local actions that were taken out of history, oldest first.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, ClientError> {
        self.blocking(|engine| Ok(engine.quarantined()?)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        step: impl FnOnce(&mut Engine<SqliteStore>) -> Result<T, ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        self.shared.blocking(step).await
    }
}

impl Shared {
    /// Runs one step of the engine where blocking is allowed.
    async fn blocking<T: Send + 'static, E: From<ClientError> + Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Engine<SqliteStore>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let shared = Arc::clone(self);
        let run = move || step(&mut shared.engine.lock().unwrap_or_else(PoisonError::into_inner));
        joined(tokio::task::spawn_blocking(run).await)?
    }

    fn query(&self, sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match pooled {
            Some(reader) => reader,
            None => Reader::open(&self.path)?,
        };
        let rows = reader.query(sql, params);
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).push(reader);
        rows
    }

    /// Tells the app what a step changed.
    fn publish(&self, committed: Committed) {
        if !committed.rows.is_empty() || !committed.fates.is_empty() {
            // An app without readers of the feed is no error.
            let _readers = self.changes.send(Arc::new(committed));
        }
    }

    /// Counts again what the status shows.
    async fn refresh_status(self: &Arc<Self>) -> Result<(), SyncError> {
        let counts = |engine: &mut Engine<SqliteStore>| -> Result<_, EngineError> {
            Ok((engine.pending_count()?, engine.quarantined()?.len()))
        };
        let (pending, quarantined) = self.blocking(move |engine| Ok::<_, SyncError>(counts(engine)?)).await?;
        self.status.send_modify(|status| {
            status.pending = pending;
            status.quarantined = quarantined;
        });
        Ok(())
    }
}

/// A step that panicked, or a runtime that is shutting down.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, ClientError> {
    result.map_err(|error| ClientError::Interrupted { panicked: error.is_panic() })
}
