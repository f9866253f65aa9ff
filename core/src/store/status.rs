//! The little that is not log or rows: who this device is, its clock, its cursors, fates and quarantine.

use super::StoreError;
use crate::model::{ActionId, ActionTag, AudienceKey, ClientId, Cursor, Cursors, Epoch, Hlc, UserId};

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

/// Why an action is in quarantine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuarantineKind {
    /// The server refused it.
    RejectedByServer,
    /// It fails on the rows as they are now, or touches an audience that the user is not in.
    RejectedOnReplay,
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

/// Status of this device. The client id is made with the database; the user is known from the first session on.
pub trait StatusStore {
    /// This device.
    fn client_id(&self) -> Result<ClientId, StoreError>;
    /// The user of the newest session.
    fn user_id(&self) -> Result<Option<UserId>, StoreError>;
    /// The server's history that the cursors belong to.
    fn epoch(&self) -> Result<Option<Epoch>, StoreError>;
    /// Remembers the user and the server's history.
    fn put_session(&self, user: &UserId, epoch: Epoch) -> Result<(), StoreError>;

    /// The newest clock made or seen here.
    fn clock(&self) -> Result<Hlc, StoreError>;
    /// Moves the clock, never back.
    fn put_clock(&self, clock: Hlc) -> Result<(), StoreError>;

    /// The user's audiences with their cursors.
    fn cursors(&self) -> Result<Cursors, StoreError>;
    /// Adds an audience, or moves its cursor, never back.
    fn put_cursor(&self, audience: &AudienceKey, cursor: Cursor) -> Result<(), StoreError>;

    /// What became of an action of this device; `None` while it is pending.
    fn fate(&self, action: ActionId) -> Result<Option<Fate>, StoreError>;
    /// Decides, or changes, a fate.
    fn put_fate(&self, action: ActionId, fate: &Fate) -> Result<(), StoreError>;

    /// Copies a pending action into quarantine, with its reason.
    fn quarantine(&self, action: ActionId, kind: QuarantineKind, reason: &str) -> Result<(), StoreError>;
    /// All quarantined actions, oldest first.
    fn quarantined(&self) -> Result<Vec<Quarantined>, StoreError>;

    /// Notes that the server will never take this correction: the shared patch stands here too.
    fn refuse_correction(&self, id: ActionId) -> Result<(), StoreError>;
    /// Whether the server refused this correction.
    fn is_refused(&self, id: ActionId) -> Result<bool, StoreError>;
}
