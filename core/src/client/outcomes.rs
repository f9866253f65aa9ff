//! What became of the actions of this device, and what an app can do about those that were taken out of history.

use uuid::Uuid;

use super::{Client, ClientError, driver};
use crate::engine::{Committed, ExecuteInput};
use crate::model::{ActionId, Hlc};
use crate::store::{Fate, Fated, Quarantined, QuarantinedAction};

impl Client {
    /// What became of an action that was executed here, also in an earlier run of the app; `None` while it is pending, or
    /// after it was pruned.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn fate(&self, action: ActionId) -> Result<Option<Fate>, ClientError> {
        self.blocking(move |engine| Ok(engine.fate(action)?)).await
    }

    /// Decided fates of actions executed here, oldest action first, at most `limit`: those after `after`, which is the
    /// newest of the page before.
    ///
    /// ```
    /// # use synchrotron_core::client::{Client, ClientError};
    /// # async fn show(client: Client) -> Result<(), ClientError> {
    /// let mut after = None;
    /// loop {
    ///     let page = client.fates(after, 100).await?;
    ///     let Some(last) = page.last() else { break };
    ///     after = Some((last.clock, last.action_id));
    ///     for fated in page {
    ///         println!("{} {:?}", fated.action_id, fated.fate);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn fates(&self, after: Option<(Hlc, ActionId)>, limit: usize) -> Result<Vec<Fated>, ClientError> {
        self.blocking(move |engine| Ok(engine.fates(after, limit)?)).await
    }

    /// Forgets the fates of actions that were executed before this time, in milliseconds since 1970; returns how many.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be written.
    pub async fn prune_fates(&self, before_ms: i64) -> Result<usize, ClientError> {
        self.blocking(move |engine| Ok(engine.prune_fates(before_ms)?)).await
    }

    /// Local actions that were taken out of history, oldest first.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn quarantined(&self) -> Result<Vec<Quarantined>, ClientError> {
        self.blocking(|engine| Ok(engine.quarantined()?)).await
    }

    /// One of them: its arguments, what it did when it last ran, and why it is there; `None` if it is not in quarantine.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn quarantine_inspect(&self, action: ActionId) -> Result<Option<QuarantinedAction>, ClientError> {
        self.blocking(move |engine| Ok(engine.inspect(action)?)).await
    }

    /// All of them with all that is kept, for a support case or another device.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be read.
    pub async fn quarantine_export(&self) -> Result<Vec<QuarantinedAction>, ClientError> {
        self.blocking(|engine| Ok(engine.export_quarantine()?)).await
    }

    /// Executes a quarantined action again, as a new action on the rows as they are now, and returns the new one's id.
    /// If that succeeds, the old one leaves the quarantine.
    ///
    /// # Errors
    /// [`ClientError::Retry`]; then it stays where it is.
    pub async fn quarantine_retry(&self, action: ActionId) -> Result<ActionId, ClientError> {
        let input = ExecuteInput {
            action_id: ActionId::from_uuid(Uuid::now_v7()),
            now_ms: driver::now_ms(),
            trace_parent: self.shared.trace_context.current(),
        };
        self.shared
            .telling(move |engine, shared| {
                let committed = engine.retry(action, input)?;
                shared.work.notify_one();
                Ok((input.action_id, committed))
            })
            .await
    }

    /// Forgets a quarantined action for good; false if it was not there.
    ///
    /// # Errors
    /// [`ClientError::Engine`] if the database cannot be written.
    pub async fn quarantine_discard(&self, action: ActionId) -> Result<bool, ClientError> {
        self.shared.telling(move |engine, _| Ok((engine.discard(action)?, Committed::default()))).await
    }
}
