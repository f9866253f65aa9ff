//! The handle of one execution: its output now, its fate later.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{Client, ClientError};
use crate::engine::Committed;
use crate::model::ActionId;
use crate::store::Fate;

/// An action that was executed on this device.
#[derive(Debug)]
pub struct Execution<T> {
    /// The execution's id, under which its fate can be asked for after a restart too.
    pub id: ActionId,
    /// What the action returned.
    pub output: T,
    client: Client,
    feed: broadcast::Receiver<Arc<Committed>>,
    /// What the caller was told last; the feed may still hold the event that said so.
    told: Option<Fate>,
}

impl<T> Execution<T> {
    pub(super) fn new(id: ActionId, output: T, client: Client, feed: broadcast::Receiver<Arc<Committed>>) -> Self {
        Self { id, output, client, feed, told: None }
    }

    /// Waits until the server has committed the action, or it was rejected. Waits for as long as the client is offline.
    ///
    /// A fate can change later: something late may turn [`Fate::Confirmed`] into [`Fate::Changed`]. See
    /// [`Self::next_fate`].
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn confirmed(&mut self) -> Result<Fate, ClientError> {
        match self.client.fate(self.id).await? {
            Some(fate) => Ok(self.tell(fate)),
            None => self.next_fate().await,
        }
    }

    /// Waits until this action's fate is decided, or is another than this handle told last.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn next_fate(&mut self) -> Result<Fate, ClientError> {
        loop {
            let fate = match self.feed.recv().await {
                Ok(committed) => committed.fates.get(&self.id).cloned(),
                Err(broadcast::error::RecvError::Lagged(_)) => self.client.fate(self.id).await?,
                Err(broadcast::error::RecvError::Closed) => return Err(ClientError::Offline),
            };
            if let Some(fate) = fate.filter(|fate| self.told.as_ref() != Some(fate)) {
                return Ok(self.tell(fate));
            }
        }
    }

    fn tell(&mut self, fate: Fate) -> Fate {
        self.told = Some(fate.clone());
        fate
    }
}
