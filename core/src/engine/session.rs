//! Session: what a server says of itself and of the user, and what follows for the rows here.
//!
//! Place in the journey: before it. A gained audience needs a snapshot; a lost one is purged; another history of the
//! server, or records that it no longer keeps, make rows stale. Stale rows stay readable until a snapshot replaces them.

use std::collections::BTreeMap;

use super::{Committed, Engine, EngineError, doctor};
use crate::model::{AudienceKey, Cursor, Hlc};
use crate::store::{AudienceState, Store, StoreTxn};
use crate::wire::{AudienceHead, Session};

/// A wall clock that is off by less than this is left alone: a message's way takes its time too.
const CLOCK_OFF_MS: i64 = 2_000;

/// How long the fate of an action is kept, by the server's clock: 30 days.
const FATES_KEPT_MS: i64 = 30 * 24 * 60 * 60 * 1_000;

impl<S: Store> Engine<S> {
    /// Takes what a session reply says: who the server sees, its history and its clock, the user's audiences.
    ///
    /// Rows of audiences that the user has left are gone when this returns; pending actions that need them are in
    /// quarantine. Audiences that are new here, and all of them if the server has another history, wait for
    /// [`Self::snapshot_request`]. Fates of actions older than 30 days are forgotten.
    ///
    /// # Errors
    /// [`EngineError::ForeignUser`] if the connection proves another user than this database belongs to.
    pub fn begin_session(&mut self, session: &Session, now_ms: i64) -> Result<Committed, EngineError> {
        // The server may have migrated since.
        self.retry_held();
        // Slices of an earlier session may be of another history; what they said is fetched.
        self.waiting.clear();
        let txn = self.store.begin()?;
        let expected = txn.user_id()?.ok_or(EngineError::SignedOut)?;
        if expected != session.user_id {
            return Err(EngineError::ForeignUser { expected, actual: session.user_id.clone() });
        }
        let off = session.server_time_ms - now_ms;
        txn.put_clock_offset_ms(if off.abs() < CLOCK_OFF_MS { 0 } else { off })?;
        let first = txn.epoch()?.is_none();
        let another = txn.epoch()?.is_some_and(|epoch| epoch != session.epoch);
        txn.prune_fates(Hlc::at_millis(session.server_time_ms - FATES_KEPT_MS))?;
        txn.put_session(&session.user_id, session.epoch)?;
        let damaged = doctor::quick(&*txn)?.is_some();
        let mut known: BTreeMap<AudienceKey, AudienceState> = txn.audiences()?.into_iter().collect();
        for head in &session.audiences {
            let state = known.remove(&head.audience_key);
            txn.put_audience(&head.audience_key, &standing(head, state, another, damaged))?;
        }
        let lost: Vec<AudienceKey> = known.into_keys().collect();
        // Before the first session nobody knew which audiences are the user's: what is pending runs again, and says.
        let committed = if lost.is_empty() && !first {
            Committed::default()
        } else {
            txn.next_generation()?;
            super::snapshot::purge(&*txn, &self.registry, &self.tables, &lost)?
        };
        if another {
            // The server may have lost what it had accepted: whatever of ours it does not know goes there again. After the
            // purge: what is in an audience that the user has left is nobody's to send.
            txn.reopen(txn.client_id()?)?;
            txn.drop_staged()?;
            txn.next_generation()?;
            self.disputed.clear();
        }
        txn.commit()?;
        Ok(committed)
    }
}

/// Where this device stands in an audience after the server has said where it is.
fn standing(head: &AudienceHead, known: Option<AudienceState>, another: bool, damaged: bool) -> AudienceState {
    match known {
        None => AudienceState { stale: head.head > Cursor::START, ..AudienceState::default() },
        Some(state) if another => AudienceState { stale: true, cursor: Cursor::START, ..state },
        // Less than is had here: the server lost something without saying so.
        Some(state) => {
            let missing = state.cursor < head.retained || head.head < state.cursor;
            AudienceState { stale: state.stale || damaged || missing, ..state }
        }
    }
}

/// Marks every audience: its rows must be taken from a snapshot.
pub(super) fn mark_stale(txn: &dyn StoreTxn) -> Result<(), crate::store::StoreError> {
    for (audience, state) in txn.audiences()? {
        txn.put_audience(&audience, &AudienceState { stale: true, ..state })?;
    }
    txn.drop_staged()
}
