//! The running driver of a client, if any: started, replaced and stopped here.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::leadership::Leadership;
use super::shared::Shared;
use super::{SyncError, driver};
use crate::network::Network;

/// Someone waits for a pass: told when one is done that began after the request.
pub(super) type SyncRequest = oneshot::Sender<Result<(), SyncError>>;

/// The running driver, if any. It ends with the last clone of the client.
#[derive(Debug, Default)]
pub(super) struct DriverSlot(Mutex<Option<Running>>);

#[derive(Debug)]
struct Running {
    task: AbortHandle,
    requests: mpsc::UnboundedSender<SyncRequest>,
    leadership: Arc<Leadership>,
}

impl Drop for Running {
    /// The lead is free at once, for a client that opens the same file next; the task ends at its next wait.
    fn drop(&mut self) {
        self.leadership.resign();
        self.task.abort();
    }
}

impl DriverSlot {
    /// Starts a driver, in place of one that runs.
    pub(super) fn start(&self, shared: &Arc<Shared>, network: Arc<dyn Network>) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = None;
        let (requests, inbox) = mpsc::unbounded_channel();
        let leadership = Arc::new(Leadership::of(&shared.path));
        let driver = driver::run(Arc::clone(shared), network, inbox, Arc::clone(&leadership));
        *slot = Some(Running { task: tokio::spawn(driver).abort_handle(), requests, leadership });
    }

    /// Stops the driver that runs.
    pub(super) fn stop(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Where to ask for a pass.
    pub(super) fn requests(&self) -> Option<mpsc::UnboundedSender<SyncRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|running| running.requests.clone())
    }
}
