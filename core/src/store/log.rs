//! The action log: records and their shared patches, in the one order.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::StoreError;
use crate::model::{ActionId, ActionRecord, ClientId, Patch, ReplayKey, ServerIngestId};

/// A record as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The record.
    pub record: ActionRecord,
    /// Its shared patch: the rows of it that are visible here.
    pub rows: Vec<Patch>,
    /// How many rows it has in all audiences together.
    pub row_count: u32,
    /// For an action executed here: the digest of what it did at first, to tell whether that changed.
    pub executed: Option<Uuid>,
    /// Whether this replica's code does exactly the action's shared patch on the rows that its author had.
    pub faithful: Option<bool>,
}

impl StoredRecord {
    /// Whether every row of it is visible here.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        usize::try_from(self.row_count).is_ok_and(|count| count == self.rows.len())
    }
}

/// Everything that the log holds at one position: an action, its corrections, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// The position in the one order.
    pub position: ReplayKey,
    /// The action; `None` if only corrections of it are visible here.
    pub action: Option<StoredRecord>,
    /// Its corrections, accepted or not.
    pub corrections: Vec<StoredRecord>,
    /// What is remembered as the newest arrival at all positions through this one; `None` if its records do not agree.
    pub newest: Option<i64>,
}

/// Stands for "newer than everything accepted": something that is not sent yet.
pub const UNSENT: i64 = i64::MAX;

/// The action log. Every query is by index; none loads the log.
pub trait LogStore {
    /// Adds a record with its shared patch; one that is there already is replaced.
    fn put_record(&self, record: &StoredRecord) -> Result<(), StoreError>;
    /// Forgets a record and its patch.
    fn remove_record(&self, id: ActionId) -> Result<(), StoreError>;
    /// Those of these records that are here.
    fn known(&self, ids: &[ActionId]) -> Result<BTreeSet<ActionId>, StoreError>;
    /// One record with its patch.
    fn record(&self, id: ActionId) -> Result<Option<StoredRecord>, StoreError>;
    /// Replaces the patch of a pending action by what its replay did.
    fn put_patch(&self, id: ActionId, rows: &[Patch]) -> Result<(), StoreError>;
    /// The server accepted a record under this number.
    fn accept(&self, id: ActionId, number: ServerIngestId) -> Result<(), StoreError>;
    /// Remembers whether this replica can judge an action, or that this is not known.
    fn remember_faithful(&self, id: ActionId, faithful: Option<bool>) -> Result<(), StoreError>;

    /// The first position at or after `from`, with all that is there.
    fn at_or_after(&self, from: ReplayKey) -> Result<Option<Logged>, StoreError>;
    /// The first position after `position`, with all that is there.
    fn after(&self, position: ReplayKey) -> Result<Option<Logged>, StoreError>;
    /// The newest arrival at all positions before `position`, [`UNSENT`] if something unsent is among them.
    fn newest_before(&self, position: ReplayKey) -> Result<i64, StoreError>;
    /// Remembers the newest arrival at all positions through `position`. A new record remembers its own arrival.
    fn remember_newest(&self, position: ReplayKey, newest: i64) -> Result<(), StoreError>;
    /// The first position before `before` where something arrived after `number`, or is not sent yet.
    fn first_later_than(&self, number: ServerIngestId, before: ReplayKey) -> Result<Option<ReplayKey>, StoreError>;

    /// Records that are not accepted yet after `after` (a position, and an id at it), in the one order, at most `limit`.
    fn unsent(&self, after: Option<(ReplayKey, ActionId)>, limit: usize) -> Result<Vec<StoredRecord>, StoreError>;
    /// The first position of a record that is not accepted yet.
    fn first_unsent(&self) -> Result<Option<ReplayKey>, StoreError>;
    /// The first position of all.
    fn first_position(&self) -> Result<Option<ReplayKey>, StoreError>;
    /// The last position before another.
    fn position_before(&self, position: ReplayKey) -> Result<Option<ReplayKey>, StoreError>;
    /// The last position of an accepted record.
    fn last_accepted(&self) -> Result<Option<ReplayKey>, StoreError>;
    /// The last position of all.
    fn last_position(&self) -> Result<Option<ReplayKey>, StoreError>;
    /// Accepted actions of this device, as far as they are whole here, are pending again, and others that have no row are forgotten: no audience holds
    /// them. Costs the whole log: for a server that has another history only.
    fn reopen(&self, client_id: ClientId) -> Result<(), StoreError>;
    /// How many actions are not accepted yet, corrections aside.
    fn pending_count(&self) -> Result<u64, StoreError>;
    /// Forgets the unsent corrections at or after `from`.
    fn remove_unsent_corrections(&self, from: ReplayKey) -> Result<(), StoreError>;
}
