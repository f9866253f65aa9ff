//! A store that fails on demand, for tests of crashes and of failing disks.
//!
//! Place in the journey: around any other store, beneath the engine. A call that fails leaves its transaction unfinished,
//! so nothing of the step may stay. Deterministic: the test says which call fails.
//!
//! ```
//! use synchrotron_core::store::{FaultSwitch, FaultKind};
//! let switch = FaultSwitch::default();
//! switch.arm(3, FaultKind::Once); // three calls pass, the fourth fails
//! assert!(!switch.has_fired());
//! ```

mod switch;

use std::collections::BTreeSet;

use self::switch::injected;
pub use self::switch::{FaultKind, FaultSwitch};
use super::{
    AudienceState, AudienceStore, Displaced, DriftStore, Fate, FateStore, Fated, LogStore, Logged, QuarantineKind,
    Quarantined, QuarantinedAction, Row, RowStore, Sql, SqlError, Staged, StatusStore, Store, StoreError, StoreTxn,
    StoredRecord,
};
use crate::model::{
    ActionId, AudienceKey, AudienceRow, ClientId, Cursor, Cursors, Epoch, Hlc, Patch, ReplayKey, RowKey, RowsDigest,
    ServerIngestId, TableName, UserId, Value,
};
use crate::wire::{SnapshotChunk, SnapshotRow};

/// A store with a switch.
#[derive(Debug)]
pub struct FaultyStore<S> {
    inner: S,
    switch: FaultSwitch,
}

impl<S> FaultyStore<S> {
    /// Puts a switch around a store.
    #[must_use]
    pub fn new(inner: S, switch: FaultSwitch) -> Self {
        Self { inner, switch }
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn begin(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.switch.pass()?;
        Ok(Box::new(FaultyTxn { inner: self.inner.begin()?, switch: &self.switch, syncs: true }))
    }

    fn begin_replaceable(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.switch.pass()?;
        Ok(Box::new(FaultyTxn { inner: self.inner.begin_replaceable()?, switch: &self.switch, syncs: false }))
    }

    fn begin_reading(&mut self) -> Result<Box<dyn StoreTxn + '_>, StoreError> {
        self.switch.pass()?;
        Ok(Box::new(FaultyTxn { inner: self.inner.begin_reading()?, switch: &self.switch, syncs: false }))
    }

    fn changed_elsewhere(&mut self) -> Result<bool, StoreError> {
        self.switch.pass()?;
        self.inner.changed_elsewhere()
    }
}

struct FaultyTxn<'a> {
    inner: Box<dyn StoreTxn + 'a>,
    switch: &'a FaultSwitch,
    /// Whether its commit is synced to disk.
    syncs: bool,
}

impl StoreTxn for FaultyTxn<'_> {
    fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.switch.pass()?;
        self.inner.commit()?;
        self.switch.committed(self.syncs);
        if self.switch.loses_answer() { Err(injected().into()) } else { Ok(()) }
    }

    fn as_sql(&self) -> &dyn Sql {
        self
    }
}

/// Each call asks the switch before it is passed on.
macro_rules! switched {
    ($target:ident: $(fn $name:ident($($argument:ident: $of:ty),*) -> $answer:ty;)*) => {$(
        fn $name(&self, $($argument: $of),*) -> $answer {
            self.switch.pass()?;
            switched!(@ $target self).$name($($argument),*)
        }
    )*};
    (@ txn $this:ident) => { $this.inner };
    (@ sql $this:ident) => { $this.inner.as_sql() };
}

impl Sql for FaultyTxn<'_> {
    switched! { sql:
        fn execute(sql: &str, params: &[Value]) -> Result<usize, SqlError>;
        fn query(sql: &str, params: &[Value]) -> Result<Vec<Row>, SqlError>;
    }
}

impl RowStore for FaultyTxn<'_> {
    fn end_action(&self) {
        self.inner.end_action();
    }

    switched! { txn:
        fn savepoint() -> Result<(), StoreError>;
        fn release_savepoint() -> Result<(), StoreError>;
        fn rollback_to_savepoint() -> Result<(), StoreError>;
        fn begin_action(action: ActionId) -> Result<(), StoreError>;
        fn apply_patch(action: ActionId, patch: &[Patch]) -> Result<Vec<Displaced>, StoreError>;
        fn captured(action: ActionId) -> Result<Vec<Patch>, StoreError>;
        fn has_effects(action: ActionId) -> Result<bool, StoreError>;
        fn newest_undone() -> Result<Option<ActionId>, StoreError>;
        fn oldest_undone() -> Result<Option<ActionId>, StoreError>;
        fn check_file() -> Result<Vec<String>, StoreError>;
        fn rewind(action: ActionId) -> Result<Vec<RowKey>, StoreError>;
    }
}

impl LogStore for FaultyTxn<'_> {
    switched! { txn:
        fn put_record(record: &StoredRecord) -> Result<(), StoreError>;
        fn remove_record(id: ActionId) -> Result<(), StoreError>;
        fn known(ids: &[ActionId]) -> Result<BTreeSet<ActionId>, StoreError>;
        fn record(id: ActionId) -> Result<Option<StoredRecord>, StoreError>;
        fn put_patch(id: ActionId, rows: &[Patch]) -> Result<(), StoreError>;
        fn accept(id: ActionId, number: ServerIngestId) -> Result<(), StoreError>;
        fn remember_faithful(id: ActionId, faithful: Option<bool>) -> Result<(), StoreError>;
        fn at_or_after(from: ReplayKey) -> Result<Option<Logged>, StoreError>;
        fn after(position: ReplayKey) -> Result<Option<Logged>, StoreError>;
        fn newest_before(position: ReplayKey) -> Result<i64, StoreError>;
        fn remember_newest(position: ReplayKey, newest: i64) -> Result<(), StoreError>;
        fn first_later_than(number: ServerIngestId, before: ReplayKey) -> Result<Option<ReplayKey>, StoreError>;
        fn unsent(after: Option<(ReplayKey, ActionId)>, limit: usize) -> Result<Vec<StoredRecord>, StoreError>;
        fn first_unsent() -> Result<Option<ReplayKey>, StoreError>;
        fn first_position() -> Result<Option<ReplayKey>, StoreError>;
        fn position_before(position: ReplayKey) -> Result<Option<ReplayKey>, StoreError>;
        fn last_accepted() -> Result<Option<ReplayKey>, StoreError>;
        fn last_position() -> Result<Option<ReplayKey>, StoreError>;
        fn reopen(client_id: ClientId) -> Result<(), StoreError>;
        fn pending_count() -> Result<u64, StoreError>;
        fn remove_unsent_corrections(from: ReplayKey) -> Result<(), StoreError>;
    }
}

impl DriftStore for FaultyTxn<'_> {
    fn fits(&self, patch: &[Patch]) -> bool {
        self.inner.fits(patch)
    }

    switched! { txn:
        fn note_unfit(position: ReplayKey) -> Result<(), StoreError>;
        fn refit_from() -> Result<Option<ReplayKey>, StoreError>;
        fn begin_refit() -> Result<(), StoreError>;
        fn has_displaced() -> Result<bool, StoreError>;
        fn put_back(action: ActionId) -> Result<(), StoreError>;
    }
}

impl AudienceStore for FaultyTxn<'_> {
    switched! { txn:
        fn audiences() -> Result<Vec<(AudienceKey, AudienceState)>, StoreError>;
        fn put_audience(audience: &AudienceKey, state: &AudienceState) -> Result<(), StoreError>;
        fn forget_audience(audience: &AudienceKey) -> Result<Vec<TableName>, StoreError>;
        fn load_rows(rows: &[SnapshotRow]) -> Result<(), StoreError>;
        fn return_displaced() -> Result<(), StoreError>;
        fn digest(audience: &AudienceKey) -> Result<(u64, RowsDigest), StoreError>;
        fn each_row(each: &mut dyn FnMut(AudienceRow, RowsDigest)) -> Result<(), StoreError>;
        fn staged() -> Result<Option<Staged>, StoreError>;
        fn stage(chunk: &SnapshotChunk) -> Result<(), StoreError>;
        fn staged_rows(chunk: u32) -> Result<Vec<SnapshotRow>, StoreError>;
        fn drop_staged() -> Result<(), StoreError>;
    }
}

impl StatusStore for FaultyTxn<'_> {
    switched! { txn:
        fn erase_user(client_id: ClientId) -> Result<Vec<TableName>, StoreError>;
        fn client_id() -> Result<ClientId, StoreError>;
        fn put_client_id(client_id: ClientId) -> Result<(), StoreError>;
        fn user_id() -> Result<Option<UserId>, StoreError>;
        fn epoch() -> Result<Option<Epoch>, StoreError>;
        fn put_session(user: &UserId, epoch: Epoch) -> Result<(), StoreError>;
        fn clock() -> Result<Hlc, StoreError>;
        fn put_clock(clock: Hlc) -> Result<(), StoreError>;
        fn reset_clock(clock: Hlc) -> Result<(), StoreError>;
        fn clock_offset_ms() -> Result<i64, StoreError>;
        fn put_clock_offset_ms(offset_ms: i64) -> Result<(), StoreError>;
        fn generation() -> Result<i64, StoreError>;
        fn next_generation() -> Result<(), StoreError>;
        fn cursors() -> Result<Cursors, StoreError>;
        fn put_cursor(audience: &AudienceKey, cursor: Cursor) -> Result<(), StoreError>;
    }
}

impl FateStore for FaultyTxn<'_> {
    switched! { txn:
        fn fate(action: ActionId) -> Result<Option<Fate>, StoreError>;
        fn put_fate(action: ActionId, clock: Hlc, fate: &Fate) -> Result<(), StoreError>;
        fn fates(after: Option<(Hlc, ActionId)>, limit: usize) -> Result<Vec<Fated>, StoreError>;
        fn prune_fates(before: Hlc) -> Result<usize, StoreError>;
        fn quarantine(action: ActionId, kind: QuarantineKind, reason: &str) -> Result<(), StoreError>;
        fn quarantined() -> Result<Vec<Quarantined>, StoreError>;
        fn quarantined_count() -> Result<u64, StoreError>;
        fn inspect_quarantined(action: ActionId) -> Result<Option<QuarantinedAction>, StoreError>;
        fn discard_quarantined(action: ActionId) -> Result<bool, StoreError>;
        fn refuse_correction(id: ActionId) -> Result<(), StoreError>;
        fn is_refused(id: ActionId) -> Result<bool, StoreError>;
    }
}
