//! Pending work that the server's schema cannot take yet: the app is newer than the server.
//!
//! Place in the journey: beside upload. Nothing is wrong with such an action: it waits, and later ones on its rows with it.
//! From time to time one of those that wait for the same is tried; when it is accepted, the others go. So a server that is
//! still the same is asked once for each table or column, however much waits for it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Engine, EngineError};
use crate::model::ActionId;
use crate::store::Store;
use crate::wire::RejectionKind;

/// Actions that wait for one thing in the server's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Whether a table or a column is lacking.
    pub kind: RejectionKind,
    /// The server's words, which name it.
    pub reason: String,
    /// How many actions wait for it.
    pub actions: u64,
}

/// What waits on a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Local actions that wait for the server.
    pub pending: u64,
    /// Those of them that wait for the server's schema, by what they wait for.
    pub held: Vec<Held>,
    /// Local actions in quarantine.
    pub quarantined: u64,
}

/// What an action lacks.
type Lack = (RejectionKind, String);

/// What waits, as far as this process has met it.
#[derive(Debug, Default)]
pub(super) struct Holding {
    held: BTreeMap<ActionId, Lack>,
    /// Those of them that are tried.
    tried: BTreeMap<ActionId, Lack>,
}

impl Holding {
    pub(super) fn hold(&mut self, action: ActionId, kind: RejectionKind, reason: &str) {
        self.tried.remove(&action);
        self.held.insert(action, (kind, reason.to_owned()));
    }

    pub(super) fn holds(&self, action: ActionId) -> bool {
        self.held.contains_key(&action)
    }

    /// What waits for the same as one that is accepted, waits no longer.
    pub(super) fn accepted(&mut self, action: ActionId) {
        if let Some(lack) = self.tried.remove(&action) {
            self.held.retain(|_, other| *other != lack);
        }
    }

    /// Of those that wait for the same, one may go.
    pub(super) fn try_again(&mut self) {
        let mut seen: BTreeSet<Lack> = BTreeSet::new();
        self.tried = self.held.extract_if(.., |_, lack| seen.insert(lack.clone())).collect();
    }
}

impl<S: Store> Engine<S> {
    /// What waits: for the server, and for the user.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn counts(&mut self) -> Result<Counts, EngineError> {
        let txn = self.store.begin_reading()?;
        let mut actions: BTreeMap<&Lack, u64> = BTreeMap::new();
        for (id, lack) in self.holding.held.iter().chain(&self.holding.tried) {
            // It may have been taken out of history since.
            if txn.record(*id)?.is_some_and(|stored| stored.record.server_ingest_id.is_none()) {
                *actions.entry(lack).or_default() += 1;
            }
        }
        let held =
            actions.into_iter().map(|((kind, reason), actions)| Held { kind: *kind, reason: reason.clone(), actions });
        let held = held.collect();
        Ok(Counts { pending: txn.pending_count()?, quarantined: txn.quarantined_count()?, held })
    }

    /// Lets one of those that wait for the same go with the next batch, to see whether the server takes it now.
    pub fn retry_held(&mut self) {
        self.holding.try_again();
    }
}
