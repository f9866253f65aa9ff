//! Fates: what became of an action that was executed on this device.

use uuid::Uuid;

use crate::model::{AudienceRow, Patch};
use crate::patch::net_effects;
use crate::store::{Fate, StoredRecord};

/// A digest of an action's net effect: equal effects have equal digests.
pub(super) fn digest(rows: &[Patch]) -> Uuid {
    let net = net_effects(rows).into_iter();
    let net: Vec<_> = net.map(|(AudienceRow { row, audience_key }, effect)| (row, audience_key, effect)).collect();
    let encoded = rmp_serde::to_vec_named(&net).expect("BUG: effects always have a MessagePack form");
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &encoded)
}

/// The fate of an accepted own action whose effect, after everything that amends it, is `effect`.
pub(super) fn of_accepted(action: &StoredRecord, effect: &[Patch], reason: Option<&String>) -> Fate {
    if action.executed.is_none_or(|executed| executed == digest(effect)) {
        Fate::Confirmed
    } else {
        Fate::Changed { reason: reason.cloned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AudienceKey, Columns, Effect, RowId, TableName};

    /// Digests of what was executed are kept in databases of earlier versions.
    #[test]
    fn a_digest_is_the_same_in_every_version() {
        let patch = |sequence, table, effect| Patch {
            sequence,
            table: TableName::new(table).expect("ok"),
            row_id: RowId::new("r").expect("ok"),
            audience_key: AudienceKey::new("a").expect("ok"),
            effect,
        };
        let columns = Columns::from([("x".to_owned(), 1.into())]);
        let rows = [patch(0, "u", Effect::Delete), patch(1, "t", Effect::Insert(columns))];
        assert_eq!(digest(&rows).to_string(), "34b4a2b0-aeb3-5e9c-9b9a-10f840cfad24");
    }
}
