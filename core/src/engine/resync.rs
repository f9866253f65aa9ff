//! Recovery that is asked for: rebase, hard resync, new clocks, a new identity.
//!
//! Place in the journey: beside it. Pending work is kept with its ids and runs again on the server's rows; only
//! [`Engine::hard_resync`] takes it out, into quarantine.

use super::held::Holding;
use super::integrate::rewind_from;
use super::replay::Replay;
use super::session::mark_stale;
use super::snapshot::restamp;
use super::{Committed, Engine, EngineError};
use uuid::Uuid;

use crate::model::{ActionId, ClientId, Hlc, RecordBody, ReplayKey};
use crate::store::{LogStore, QuarantineKind, Store, StoreError, StoreTxn};

impl<S: Store> Engine<S> {
    /// Every row is to be taken from the server again, and pending actions run again on them. The next
    /// [`Self::snapshot_request`] asks for it; until it is done, everything stays as it is.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn rebase(&mut self) -> Result<(), EngineError> {
        let txn = self.store.begin()?;
        mark_stale(&*txn)?;
        Ok(txn.commit()?)
    }

    /// Like [`Self::rebase`], but pending actions are taken out, into quarantine.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn hard_resync(&mut self) -> Result<Committed, EngineError> {
        let txn = self.store.begin()?;
        let mut committed = Committed::default();
        if let Some(start) = txn.first_unsent()? {
            let mut replay = Replay::new(&*txn, &self.registry, &self.tables)?;
            replay.rewind_to(start)?;
            while let Some(stored) = LogStore::unsent(&*txn, None, 1)?.pop() {
                let reason = "everything local was dropped before it was sent".to_owned();
                replay.quarantine(&stored, QuarantineKind::Dropped, reason)?;
            }
            replay.forward_from(start)?;
            committed = replay.finish();
        }
        mark_stale(&*txn)?;
        txn.next_generation()?;
        txn.commit()?;
        Ok(committed)
    }

    /// This database is a copy: its device is `client_id` from now on. Pending actions become the new device's, and every
    /// row is taken from the server again.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn become_device(&mut self, client_id: ClientId) -> Result<(), EngineError> {
        let txn = self.store.begin()?;
        if let Some(start) = txn.first_unsent()? {
            rewind_from(&*txn, start)?;
            txn.remove_unsent_corrections(start)?;
            restamp(&*txn, None, client_id)?;
            txn.put_client_id(client_id)?;
            let mut replay = Replay::new(&*txn, &self.registry, &self.tables)?;
            replay.forward_from(start)?;
        }
        txn.put_client_id(client_id)?;
        mark_stale(&*txn)?;
        txn.next_generation()?;
        Ok(txn.commit()?)
    }

    /// Forgets all of the user on this device; then the database is the next user's, as device `client_id`. Nothing of the
    /// first is uploaded as, or shown to, the second.
    ///
    /// # Errors
    /// [`SignOutError::Unsent`] if work would be lost by it: pending or quarantined actions, unless `unsent` says that they
    /// may go. The app can [export](Engine::export_quarantine) them before.
    pub fn sign_out(&mut self, client_id: ClientId, unsent: Unsent) -> Result<Committed, SignOutError> {
        let txn = self.store.begin()?;
        let (pending, quarantined) = (txn.pending_count()?, txn.quarantined_count()?);
        if unsent == Unsent::Keep && pending + quarantined > 0 {
            return Err(SignOutError::Unsent { pending, quarantined });
        }
        let tables = txn.erase_user(client_id)?.into_iter().collect();
        txn.commit()?;
        self.waiting.clear();
        self.holding = Holding::default();
        self.disputed.clear();
        Ok(Committed { tables, ..Committed::default() })
    }

    /// The server's clock is behind some of ours: those records get clocks that it takes, in their order.
    pub(super) fn restamp_ahead(&mut self, server_time_ms: i64, now_ms: i64) -> Result<Committed, EngineError> {
        let txn = self.store.begin()?;
        txn.put_clock_offset_ms(server_time_ms - now_ms)?;
        let server = Hlc::at_millis(server_time_ms);
        let mut replay = Replay::new(&*txn, &self.registry, &self.tables)?;
        let ahead = LogStore::unsent(&*txn, Some((last_at(server), last_at(server).action_id)), 1)?.pop();
        let first = ahead.map(|stored| stored.record.position());
        if let Some(first) = first {
            replay.rewind_to(first)?;
        }
        let floors = txn.audiences()?.into_iter().filter_map(|(_, state)| state.floor);
        let seen = txn.last_accepted()?.into_iter().chain(floors).map(|position| position.clock);
        txn.reset_clock(seen.fold(server, Hlc::max))?;
        if let Some(first) = first {
            let moved = restamp(&*txn, Some(first), txn.client_id()?)?;
            replay.forward_from(moved.map_or(first, |moved| moved.min(first)))?;
        }
        let committed = replay.finish();
        restamp_corrections(&*txn, server)?;
        txn.next_generation()?;
        txn.commit()?;
        Ok(committed)
    }
}

/// What a sign-out does about work that only this device has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// It refuses, and changes nothing.
    Keep,
    /// It forgets it for good.
    Discard,
}

/// The user was not signed out; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignOutError {
    /// Only this device has these actions: sync first, or discard them.
    #[error("{pending} actions are not sent yet, {quarantined} are in quarantine")]
    Unsent {
        /// How many wait for the server.
        pending: u64,
        /// How many are in quarantine.
        quarantined: u64,
    },
    /// The local database cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The last position that a clock can have.
fn last_at(clock: Hlc) -> ReplayKey {
    ReplayKey { clock, client_id: ClientId::from_uuid(Uuid::max()), action_id: ActionId::from_uuid(Uuid::max()) }
}

/// Corrections stand at the action that they amend; only when they were made is told anew.
fn restamp_corrections(txn: &dyn StoreTxn, server: Hlc) -> Result<(), StoreError> {
    let mut after = None;
    while let Some(mut stored) = LogStore::unsent(txn, after, 1)?.pop() {
        after = Some((stored.record.position(), stored.record.id));
        if matches!(stored.record.body, RecordBody::Correction { .. }) && stored.record.clock > server {
            stored.record.clock = txn.clock()?.tick(0);
            txn.put_clock(stored.record.clock)?;
            txn.put_record(&stored)?;
        }
    }
    Ok(())
}
