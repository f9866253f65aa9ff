//! The engine: synchronous and deterministic. `(database, input, now) → (database, output)`.
//!
//! Place in the journey: between the app's actions and the network. It has no clock, no randomness, no threads and no
//! sockets: ids and times come in as values, messages come in and go out as values. [`crate::client`] drives it.
//!
//! The journey of an action: [`execute`](Engine::execute) → [`next_batch`](Engine::next_batch) → the server →
//! [`conclude`](Engine::conclude) on this device, [`receive`](Engine::receive) or
//! [`integrate_pages`](Engine::integrate_pages) on the others. Beside it: [`begin_session`](Engine::begin_session),
//! [snapshots](Engine::snapshot_request), [recovery](Engine::rebase), the [doctor](Engine::check), quarantine and fates.
//!
//! # Invariants
//! - I-01: after every step, the rows are the fold, in replay-key order, of effective patches and of what this device
//!   is about to upload.
//! - I-02: a step is one transaction: all of it is kept, or none.
//! - I-03: cursors move in the transaction that integrates what they cover, and in no other.
//! - I-04: an own action leaves the log only into quarantine.

mod accepted;
mod amend;
mod collision;
mod doctor;
mod error;
mod execute;
mod fate;
mod held;
mod ingress;
mod integrate;
mod judge;
mod purity;
mod quarantine;
mod replay;
mod resync;
mod session;
mod snapshot;
mod traces;
mod upload;

use std::collections::{BTreeMap, BTreeSet};

pub use doctor::{Finding, Report};
pub use error::{EngineError, ExecuteError};
pub use execute::{ExecuteInput, Executed};
pub use held::{Counts, Held};
pub use ingress::Received;
pub use purity::{Differs, Impurity, RowDifference};
pub use quarantine::RetryError;
pub use resync::{SignOutError, Unsent};
pub use snapshot::Progress;
pub use upload::{Concluded, Due, SentBatch};

use self::held::Holding;
use crate::action::{Identity, Registry, Table, Tables};
use crate::model::{ActionId, ClientId, Cursors, RowKey, TableName};
use crate::store::{Fate, Store, StoreTxn};
use crate::wire::Slice;

/// Bounds of what the engine makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest action: arguments and row effects, encoded.
    pub action_bytes_max: usize,
    /// An upload batch stops growing at this size. One larger action still goes, alone.
    pub batch_bytes_max: usize,
    /// An upload batch stops growing at this many records.
    pub batch_records_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { action_bytes_max: 4 << 20, batch_bytes_max: 256 << 10, batch_records_max: 500 }
    }
}

/// What a committed step changed, for the app's change feed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// The rows that it touched.
    pub rows: BTreeSet<RowKey>,
    /// Tables of which any row may have changed: a snapshot came, or an audience left.
    pub tables: BTreeSet<TableName>,
    /// The fates that it decided or changed.
    pub fates: BTreeMap<ActionId, Fate>,
}

/// The engine of one device, on its store.
#[derive(Debug)]
pub struct Engine<S> {
    store: S,
    registry: Registry,
    tables: Tables,
    limits: Limits,
    /// Slices of actions that have other slices still under way.
    waiting: Vec<Slice>,
    /// Records that the server holds with other content, and how often it said so.
    disputed: BTreeMap<ActionId, u32>,
    /// Pending actions that the server's schema cannot take yet.
    holding: Holding,
    /// Whether `execute` runs actions twice, to find impure ones.
    check_purity: bool,
}

impl<S: Store> Engine<S> {
    /// An engine on an open store. `tables` are those that the store tracks.
    #[must_use]
    pub fn new(store: S, registry: Registry, tables: &[Table], limits: Limits) -> Self {
        let identity = |table: &Table| table.row_identity().cloned().unwrap_or(Identity::Given);
        Self {
            store,
            registry,
            tables: Tables::new(tables.iter().map(|table| (table.name().to_owned(), identity(table)))),
            limits,
            waiting: Vec::new(),
            disputed: BTreeMap::new(),
            holding: Holding::default(),
            check_purity: false,
        }
    }

    /// For development: whether `execute` runs each action twice, and refuses one that does not do the same both times.
    pub fn check_purity(&mut self, check: bool) {
        self.check_purity = check;
    }

    /// This device.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn client_id(&mut self) -> Result<ClientId, EngineError> {
        self.read(|txn| Ok(txn.client_id()?))
    }

    /// Through where this device has each of its audiences.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn cursors(&mut self) -> Result<Cursors, EngineError> {
        self.read(|txn| Ok(txn.cursors()?))
    }

    /// Whether another process committed to this database since this was asked last: any row and any fate may be another.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn changed_elsewhere(&mut self) -> Result<bool, EngineError> {
        Ok(self.store.changed_elsewhere()?)
    }

    /// How many local actions wait for the server.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn pending_count(&mut self) -> Result<u64, EngineError> {
        self.read(|txn| Ok(txn.pending_count()?))
    }

    fn read<T>(&mut self, read: impl FnOnce(&dyn StoreTxn) -> Result<T, EngineError>) -> Result<T, EngineError> {
        let txn = self.store.begin_reading()?;
        read(&*txn)
    }
}
