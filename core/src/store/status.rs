//! Who this device is, its clock, and through where it has what.

use super::StoreError;
use crate::model::{AudienceKey, ClientId, Cursor, Cursors, Epoch, Hlc, TableName, UserId};

/// Status of this device. The client id is made with the database; the epoch is known from the first session on.
pub trait StatusStore {
    /// This device.
    fn client_id(&self) -> Result<ClientId, StoreError>;
    /// This device is another from now on.
    fn put_client_id(&self, client_id: ClientId) -> Result<(), StoreError>;
    /// Whose data this is; `None` after [`Self::erase_user`].
    fn user_id(&self) -> Result<Option<UserId>, StoreError>;
    /// The server's history that the cursors belong to.
    fn epoch(&self) -> Result<Option<Epoch>, StoreError>;
    /// Forgets all of the user: tracked rows, log, undo, fates, quarantine, and who it was. The device is `client_id` from
    /// now on. Tables that are not tracked are the app's own.
    fn erase_user(&self, client_id: ClientId) -> Result<Vec<TableName>, StoreError>;
    /// Remembers the user and the server's history.
    fn put_session(&self, user: &UserId, epoch: Epoch) -> Result<(), StoreError>;

    /// The newest clock made or seen here.
    fn clock(&self) -> Result<Hlc, StoreError>;
    /// Moves the clock, never back.
    fn put_clock(&self, clock: Hlc) -> Result<(), StoreError>;
    /// Sets the clock, also back: only where no record above it stays.
    fn reset_clock(&self, clock: Hlc) -> Result<(), StoreError>;
    /// What to add to this device's wall clock to have the server's, in milliseconds.
    fn clock_offset_ms(&self) -> Result<i64, StoreError>;
    /// Remembers that.
    fn put_clock_offset_ms(&self, offset_ms: i64) -> Result<(), StoreError>;

    /// Counts rewrites of history, those by other processes on this file included.
    fn generation(&self) -> Result<i64, StoreError>;
    /// History was rewritten: what was made of the older one is void.
    fn next_generation(&self) -> Result<(), StoreError>;

    /// The user's audiences with their cursors.
    fn cursors(&self) -> Result<Cursors, StoreError>;
    /// Moves the cursor of an audience, never back.
    fn put_cursor(&self, audience: &AudienceKey, cursor: Cursor) -> Result<(), StoreError>;
}
