//! What the engine needs of a local database: rows with capture and undo, the action log, and a little status.
//!
//! Place in the journey: beneath the engine. One transaction holds everything that one step changes; dropping a
//! [`StoreTxn`] undoes it all. [`SqliteStore`] is the implementation.

mod audience;
mod drift;
mod error;
mod fate;
#[cfg(feature = "test-util")]
mod faulty;
mod log;
mod row;
mod rows;
mod sqlite;
mod status;
#[cfg(feature = "test-util")]
pub mod suite;

pub use audience::{AudienceState, AudienceStore, Staged};
pub use drift::{Displaced, DriftStore};
pub use error::{SqlError, StoreError};
pub use fate::{Fate, FateStore, Fated, QuarantineKind, Quarantined, QuarantinedAction};
#[cfg(feature = "test-util")]
pub use faulty::{FaultKind, FaultSwitch, FaultyStore};
pub use log::{LogStore, Logged, StoredRecord, UNSENT};
pub use row::Row;
pub use rows::{RowStore, Sql};
pub(crate) use sqlite::Checkpointer;
pub use sqlite::{Durability, Reader, SqliteSettings, SqliteStore};
pub use status::StatusStore;

/// A local database that can hold one writer at a time.
pub trait Store: Send {
    /// Begins a write transaction.
    ///
    /// # Errors
    /// [`StoreError`] if the database is busy, full, corrupt or gone.
    fn begin(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError>;

    /// Begins a write transaction of what the server has and gives again: a power cut may take it, if it is among the newest.
    /// Whatever is kept after it keeps it, too.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Self::begin`].
    fn begin_replaceable(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError>;

    /// Begins a transaction that only reads: what it writes is not kept. It waits for no writer, where readers need not.
    ///
    /// # Errors
    /// [`StoreError`], as for [`Self::begin`].
    fn begin_reading(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError>;

    /// Whether someone else, such as another process, committed to the database since this was asked last.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot say.
    fn changed_elsewhere(&mut self) -> Result<bool, StoreError>;
}

/// One write transaction: all of it is kept by `commit`, none of it if it is dropped.
pub trait StoreTxn: RowStore + LogStore + AudienceStore + StatusStore + FateStore + DriftStore {
    /// Keeps everything.
    ///
    /// # Errors
    /// [`StoreError`] if the database cannot; then nothing is kept.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;

    /// This transaction as the view of an action that runs in it.
    fn as_sql(&self) -> &dyn Sql;
}

/// Parameters of a statement: each is turned into a [`crate::model::Value`].
///
/// ```
/// use synchrotron_core::{model::Value, params};
/// assert_eq!(params!["a", 1, None::<i64>], &[Value::Text("a".into()), Value::Integer(1), Value::Null][..]);
/// ```
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$($crate::model::Value::from($value)),*][..]
    };
}
