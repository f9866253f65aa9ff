//! Fates: what became of an action that was executed on this device.

use uuid::Uuid;

use crate::model::Patch;
use crate::patch::net_effects;
use crate::store::{Fate, StoredRecord};

/// A digest of an action's net effect: equal effects have equal digests.
pub(super) fn digest(rows: &[Patch]) -> Uuid {
    let net: Vec<_> = net_effects(rows).into_iter().map(|(row, net)| (row, net.audience_key, net.effect)).collect();
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
