//! What a client, its driver and its other tasks share.
//!
//! Whatever a step commits is told in that very step, on the thread that holds the engine: a caller that gives up, or a
//! driver that is stopped, can no longer keep it from the change feed. So events come in the order of commits.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, broadcast, watch};

use super::trace::TraceContext;
use super::{Change, ClientError, Status, Timing};
use crate::engine::{Committed, Counts, Engine, EngineError};
use crate::model::{ClientId, TableName, UserId};
use crate::store::{Checkpointer, Reader, SqlError, SqliteStore};

/// How many commits a slow reader of the change feed may fall behind before it is told so.
const CHANGES_BUFFERED: usize = 1024;
/// How many idle read-only connections are kept for the next query.
const READERS_KEPT: usize = 8;

#[derive(Debug)]
pub(super) struct Shared {
    engine: Mutex<Engine<SqliteStore>>,
    readers: Mutex<Vec<Reader>>,
    checkpointer: Checkpointer,
    pub(super) path: PathBuf,
    pub(super) client_id: ClientId,
    pub(super) user_id: UserId,
    pub(super) tables: BTreeSet<TableName>,
    pub(super) timing: Timing,
    pub(super) trace_context: TraceContext,
    pub(super) changes: broadcast::Sender<Arc<Change>>,
    pub(super) status: watch::Sender<Status>,
    /// Local work waits for the driver.
    pub(super) work: Notify,
}

/// What a client is opened with.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) engine: Engine<SqliteStore>,
    pub(super) checkpointer: Checkpointer,
    pub(super) path: PathBuf,
    pub(super) client_id: ClientId,
    pub(super) user_id: UserId,
    pub(super) tables: BTreeSet<TableName>,
    pub(super) timing: Timing,
    pub(super) trace_context: TraceContext,
}

impl Shared {
    pub(super) fn new(opened: Opened) -> Result<Self, EngineError> {
        let Opened { engine, checkpointer, path, client_id, user_id, tables, timing, trace_context } = opened;
        let shared = Self {
            engine: Mutex::new(engine),
            readers: Mutex::default(),
            checkpointer,
            path,
            client_id,
            user_id,
            tables,
            timing,
            trace_context,
            changes: broadcast::Sender::new(CHANGES_BUFFERED),
            status: watch::Sender::new(Status::default()),
            work: Notify::new(),
        };
        shared.count(&mut shared.engine.lock().unwrap_or_else(PoisonError::into_inner))?;
        Ok(shared)
    }

    /// Runs one step of the engine where blocking is allowed.
    pub(super) async fn blocking<T: Send + 'static, E: From<ClientError> + Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Engine<SqliteStore>) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let shared = Arc::clone(self);
        // A step that panicked kept nothing: its transaction is undone, and the next begins afresh.
        let run = move || {
            let done = step(&mut shared.engine.lock().unwrap_or_else(PoisonError::into_inner));
            if let Some(checkpoint) = shared.checkpointer.due() {
                drop(tokio::task::spawn_blocking(move || checkpoint.run()));
            }
            done
        };
        joined(tokio::task::spawn_blocking(run).await)?
    }

    /// Runs one step, and tells what it committed.
    pub(super) async fn telling<T: Send + 'static>(
        self: &Arc<Self>,
        step: impl FnOnce(&mut Engine<SqliteStore>, &Self) -> Result<(T, Committed), ClientError> + Send + 'static,
    ) -> Result<T, ClientError> {
        let shared = Arc::clone(self);
        self.blocking(move |engine| {
            let (output, committed) = step(engine, &shared)?;
            shared.publish(committed);
            shared.count(engine)?;
            Ok(output)
        })
        .await
    }

    /// Runs a query where blocking is allowed, beside the engine. The answer's future does not keep the client alive.
    pub(super) fn reading<T: Send + 'static, R>(
        self: &Arc<Self>,
        read: R,
    ) -> impl Future<Output = Result<T, ClientError>> + Send + use<T, R>
    where
        R: FnOnce(&Reader) -> Result<T, SqlError> + Send + 'static,
    {
        let shared = Arc::clone(self);
        let answer = tokio::task::spawn_blocking(move || shared.with_reader(read));
        async move { joined(answer.await)?.map_err(ClientError::Sql) }
    }

    fn with_reader<T>(&self, read: impl FnOnce(&Reader) -> Result<T, SqlError>) -> Result<T, SqlError> {
        let pooled = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let reader = match pooled {
            Some(reader) => reader,
            None => Reader::open(&self.path)?,
        };
        let answer = read(&reader);
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if readers.len() < READERS_KEPT {
            readers.push(reader);
        }
        answer
    }

    /// Tells the app what a step changed. Called within the step.
    pub(super) fn publish(&self, committed: Committed) {
        if committed != Committed::default() {
            self.tell(Change::Committed(committed));
        }
    }

    /// Tells the app that something changed.
    pub(super) fn tell(&self, change: Change) {
        // An app without readers of the feed is no error.
        let _readers = self.changes.send(Arc::new(change));
    }

    /// Counts again what the status shows. Called within a step, so that no count is older than the one before.
    pub(super) fn count(&self, engine: &mut Engine<SqliteStore>) -> Result<(), EngineError> {
        let Counts { pending, held, quarantined } = engine.counts()?;
        self.status.send_if_modified(|status| {
            let same = (status.pending, status.quarantined, &status.held) == (pending, quarantined, &held);
            (status.pending, status.quarantined, status.held) = (pending, quarantined, held);
            !same
        });
        Ok(())
    }
}

/// A step that panicked, or a runtime that is shutting down.
fn joined<T>(result: Result<T, tokio::task::JoinError>) -> Result<T, ClientError> {
    result.map_err(|error| ClientError::Interrupted { panicked: error.is_panic() })
}
