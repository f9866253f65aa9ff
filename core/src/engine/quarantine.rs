//! Quarantine and fates, for the app: what was taken out of history, and what became of the rest.

use super::{Committed, Engine, EngineError, ExecuteError, ExecuteInput};
use crate::action::{ActionError, Context};
use crate::model::{ActionId, ActionTag, Hlc, RecordBody};
use crate::store::{Fate, Fated, Quarantined, QuarantinedAction, Store};

/// A quarantined action could not be retried. It stays in quarantine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// There is no such action in quarantine.
    #[error("action {action} is not in quarantine")]
    NotThere {
        /// The id that was given.
        action: ActionId,
    },
    /// This version of the app does not know its tag.
    #[error("this app does not know action {tag}")]
    UnknownTag {
        /// The tag.
        tag: ActionTag,
    },
    /// It still cannot be executed.
    #[error(transparent)]
    Execute(#[from] ExecuteError),
}

impl<S: Store> Engine<S> {
    /// Local actions that were taken out of history, oldest first.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn quarantined(&mut self) -> Result<Vec<Quarantined>, EngineError> {
        self.read(|txn| Ok(txn.quarantined()?))
    }

    /// One of them: its arguments, what it did when it last ran, and why it is here.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn inspect(&mut self, action: ActionId) -> Result<Option<QuarantinedAction>, EngineError> {
        self.read(|txn| Ok(txn.inspect_quarantined(action)?))
    }

    /// All of them, for a support case or another device.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn export_quarantine(&mut self) -> Result<Vec<QuarantinedAction>, EngineError> {
        self.read(|txn| {
            let ids = txn.quarantined()?.into_iter().map(|quarantined| quarantined.id);
            let found = ids.map(|id| txn.inspect_quarantined(id)).collect::<Result<Vec<_>, _>>()?;
            Ok(found.into_iter().flatten().collect())
        })
    }

    /// Executes a quarantined action again, as a new action on the rows as they are now; if that succeeds, it leaves the
    /// quarantine.
    ///
    /// # Errors
    /// [`RetryError`]; then it stays where it is.
    pub fn retry(&mut self, action: ActionId, input: ExecuteInput) -> Result<Committed, RetryError> {
        let found = self.read(|txn| Ok(txn.inspect_quarantined(action)?)).map_err(into_execute)?;
        let QuarantinedAction { quarantined: Quarantined { tag, .. }, args, .. } =
            found.ok_or(RetryError::NotThere { action })?;
        if !self.registry.knows(&tag) {
            return Err(RetryError::UnknownTag { tag });
        }
        let body = RecordBody::Action { tag: tag.clone(), args: args.clone() };
        let registry = self.registry.clone();
        let run = |ctx: &mut Context<'_>| {
            let unreadable = || Err(ActionError::Arguments { tag: tag.to_string() });
            registry.run(&tag, &args, ctx).unwrap_or_else(unreadable)
        };
        let executed = self.perform(body, input, run, |txn| txn.discard_quarantined(action).map(drop))?;
        Ok(executed.committed)
    }

    /// Forgets a quarantined action for good; false if it was not there.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn discard(&mut self, action: ActionId) -> Result<bool, EngineError> {
        let txn = self.store.begin()?;
        let discarded = txn.discard_quarantined(action)?;
        txn.commit()?;
        Ok(discarded)
    }

    /// What became of an action that was executed here; `None` while it is pending, or after its fate was pruned.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn fate(&mut self, action: ActionId) -> Result<Option<Fate>, EngineError> {
        self.read(|txn| Ok(txn.fate(action)?))
    }

    /// Decided fates of actions after `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn fates(&mut self, after: Option<(Hlc, ActionId)>, limit: usize) -> Result<Vec<Fated>, EngineError> {
        self.read(|txn| Ok(txn.fates(after, limit)?))
    }

    /// Forgets the fates of actions that were executed before this time, in milliseconds since 1970; returns how many.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn prune_fates(&mut self, before_ms: i64) -> Result<usize, EngineError> {
        let txn = self.store.begin()?;
        let pruned = txn.prune_fates(Hlc::at_millis(before_ms))?;
        txn.commit()?;
        Ok(pruned)
    }
}

/// Reading the quarantine can only fail as the store does.
fn into_execute(error: EngineError) -> RetryError {
    match error {
        EngineError::Store(error) => RetryError::Execute(error.into()),
        other => unreachable!("BUG: reading the quarantine needs no session: {other}"),
    }
}
