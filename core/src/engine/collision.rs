//! Collisions: an accepted row needs a value that is UNIQUE here, or an id, and a pending action gave it to another row.
//!
//! Constraints are the server's to check for accepted history. It has taken the one row, so it would refuse the other: the
//! pending action goes to quarantine at once, with the constraint as the reason, and history from there on is gone through
//! again without it. Two accepted rows are the store's business: it keeps one aside until the value is free (see
//! [`Displaced`]).

use super::replay::Replay;
use crate::model::{Columns, Effect, Patch, ReplayKey};
use crate::store::{Displaced, StoreError, StoredRecord};

impl Replay<'_> {
    /// The newest pending action before `position` that gave a displaced row the value that an accepted row needs. The
    /// server has taken the other one, so it would refuse this one.
    pub(super) fn pending_in_the_way(
        &self,
        displaced: &[Displaced],
        position: ReplayKey,
    ) -> Result<Option<(StoredRecord, String)>, StoreError> {
        let mut found = None;
        let mut after = None;
        while !displaced.is_empty() {
            let Some(stored) = self.txn.unsent(after, 1)?.pop() else { break };
            let at = stored.record.position();
            if at >= position {
                break;
            }
            after = Some((at, stored.record.id));
            let holds = |displaced: &&Displaced| stored.rows.iter().any(|row| gives(row, displaced));
            if let Some(displaced) = displaced.iter().find(holds).filter(|_| at.action_id == stored.record.id) {
                let reason = displaced.constraint.to_string();
                found = Some((stored, reason));
            }
        }
        Ok(found)
    }
}

/// Whether a patch gives a displaced row a value that another row needs, or makes it with an id that is another's.
fn gives(patch: &Patch, displaced: &Displaced) -> bool {
    let makes = |column: &String| column == "id" && matches!(patch.effect, Effect::Insert(_));
    let named = |columns: &Columns| {
        displaced.columns.is_empty()
            || displaced.columns.iter().any(|column| columns.contains_key(column) || makes(column))
    };
    patch.audience_row() == displaced.row && patch.effect.columns().is_some_and(named)
}
