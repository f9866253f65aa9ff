//! The handle of one execution: its output now, its fate later.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::{Change, Client, ClientError};
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
    feed: broadcast::Receiver<Arc<Change>>,
    /// What the caller was told last; the feed may still hold the event that said so.
    told: Option<Fate>,
    /// Whether only the database knows; kept here, so that a caller that gives up asking loses nothing.
    unsure: bool,
}

impl<T> Execution<T> {
    pub(super) fn new(id: ActionId, output: T, client: Client, feed: broadcast::Receiver<Arc<Change>>) -> Self {
        Self { id, output, client, feed, told: None, unsure: false }
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
            let fate = if self.unsure {
                let fate = self.client.fate(self.id).await?;
                self.unsure = false;
                fate
            } else {
                self.heard().await?
            };
            if let Some(fate) = fate.filter(|fate| self.told.as_ref() != Some(fate)) {
                return Ok(self.tell(fate));
            }
        }
    }

    /// What the next event says of this action.
    async fn heard(&mut self) -> Result<Option<Fate>, ClientError> {
        match self.feed.recv().await {
            Ok(change) => match &*change {
                Change::Committed(committed) => return Ok(committed.fates.get(&self.id).cloned()),
                Change::Elsewhere => self.unsure = true,
            },
            Err(broadcast::error::RecvError::Lagged(_)) => self.unsure = true,
            Err(broadcast::error::RecvError::Closed) => return Err(ClientError::Offline),
        }
        Ok(None)
    }

    fn tell(&mut self, fate: Fate) -> Fate {
        self.told = Some(fate.clone());
        fate
    }
}
