//! What became of the actions of this device: their fates, and those that were taken out of history.

use super::StoreError;
use crate::model::{ActionArgs, ActionId, ActionTag, Hlc, Patch};

/// What became of an action that was executed on this device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Committed in Postgres, with the effect that it had here at first.
    Confirmed,
    /// Committed, but something late made its effect differ or vanish.
    Changed {
        /// The rule's own words, if the effect was removed because the action now fails.
        reason: Option<String>,
    },
    /// Refused by the server, or fails on replay before it was sent. It is in quarantine.
    Rejected {
        /// Why.
        reason: String,
    },
}

/// An action whose fate is decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fated {
    /// The action.
    pub action_id: ActionId,
    /// When it was executed.
    pub clock: Hlc,
    /// What became of it.
    pub fate: Fate,
}

/// Why an action is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineKind {
    /// The server refused it.
    RejectedByServer,
    /// It fails on the rows as they are now, or touches an audience that the user is not in.
    RejectedOnReplay,
    /// The app dropped everything local, and it was not sent yet.
    Dropped,
}

impl QuarantineKind {
    /// Whether the server may have the action all the same: it was sent, and the answer was lost.
    #[must_use]
    pub const fn may_be_accepted(self) -> bool {
        match self {
            Self::RejectedByServer => false,
            Self::RejectedOnReplay | Self::Dropped => true,
        }
    }
}

/// A local action that was taken out of history, kept for its author.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// The action.
    pub id: ActionId,
    /// Its tag.
    pub tag: ActionTag,
    /// Why it is here.
    pub kind: QuarantineKind,
    /// The reason in words.
    pub reason: String,
}

/// All that is kept of a quarantined action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantinedAction {
    /// Which action, and why it is here.
    pub quarantined: Quarantined,
    /// When it was executed.
    pub clock: Hlc,
    /// Its arguments.
    pub args: ActionArgs,
    /// What it did to rows when it last ran.
    pub patches: Vec<Patch>,
}

/// Fates and quarantine.
pub trait FateStore {
    /// What became of an action of this device; `None` while it is pending, or after it was pruned.
    fn fate(&self, action: ActionId) -> Result<Option<Fate>, StoreError>;
    /// Decides, or changes, the fate of an action that was executed at `clock`.
    fn put_fate(&self, action: ActionId, clock: Hlc, fate: &Fate) -> Result<(), StoreError>;
    /// Decided fates of actions after `after`, oldest first, at most `limit`.
    fn fates(&self, after: Option<(Hlc, ActionId)>, limit: usize) -> Result<Vec<Fated>, StoreError>;
    /// Forgets the fates of actions executed before `clock`; returns how many.
    fn prune_fates(&self, before: Hlc) -> Result<usize, StoreError>;

    /// Copies a pending action into quarantine, with its reason.
    fn quarantine(&self, action: ActionId, kind: QuarantineKind, reason: &str) -> Result<(), StoreError>;
    /// All quarantined actions, oldest first.
    fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError>;
    /// How many there are.
    fn quarantined_count(&self) -> Result<u64, StoreError>;
    /// One of them, with its arguments and what it did.
    fn inspect_quarantined(&self, action: ActionId) -> Result<Option<QuarantinedAction>, StoreError>;
    /// Forgets one of them; false if it is not there.
    fn discard_quarantined(&self, action: ActionId) -> Result<bool, StoreError>;

    /// Notes that the server will never take this correction: the shared patch stands here too.
    fn refuse_correction(&self, id: ActionId) -> Result<(), StoreError>;
    /// Whether the server refused this correction.
    fn is_refused(&self, id: ActionId) -> Result<bool, StoreError>;
}
