//! What a list of effects comes to, row by row.

use std::collections::BTreeMap;

use crate::model::{AudienceKey, Columns, Effect, Patch, RowKey};

/// An action's whole effect on one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetEffect {
    /// The row's audience.
    pub audience_key: AudienceKey,
    /// Equal in every fold to the effects it was made of.
    pub effect: Effect,
}

/// An action's whole effect, by row. Rows that it created and removed again are not in it.
pub type NetEffects = BTreeMap<RowKey, NetEffect>;

/// Folds an action's effects, in sequence, to one effect per row.
///
/// Columns that were set and set back stay in an UPDATE: the action did write them.
#[must_use]
pub fn net_effects<'a>(patches: impl IntoIterator<Item = &'a Patch>) -> NetEffects {
    let mut rows: BTreeMap<RowKey, Row> = BTreeMap::new();
    for patch in patches {
        if let Some(row) = rows.get_mut(&patch.row_key()) {
            row.add(&patch.effect);
        } else {
            rows.insert(patch.row_key(), Row::first(patch));
        }
    }
    rows.into_iter().filter_map(|(key, row)| row.net().map(|net| (key, net))).collect()
}

struct Row {
    audience_key: AudienceKey,
    /// Whether the row was there before the action: all but a first INSERT say so.
    was_there: bool,
    effect: Effect,
}

impl Row {
    fn first(patch: &Patch) -> Self {
        Self {
            audience_key: patch.audience_key.clone(),
            was_there: !matches!(patch.effect, Effect::Insert(_)),
            effect: patch.effect.clone(),
        }
    }

    fn add(&mut self, next: &Effect) {
        self.effect = match (std::mem::replace(&mut self.effect, Effect::Nothing), next) {
            (_, Effect::Insert(_) | Effect::Delete) | (Effect::Nothing, _) => next.clone(),
            (effect, Effect::Nothing) => effect,
            (Effect::Insert(columns), Effect::Update(more)) => Effect::Insert(merged(columns, more)),
            (Effect::Update(columns), Effect::Update(more)) => Effect::Update(merged(columns, more)),
            (Effect::Delete, Effect::Update(_)) => Effect::Delete,
        };
    }

    fn net(self) -> Option<NetEffect> {
        let vanished = self.effect == Effect::Delete && !self.was_there;
        (!vanished).then_some(NetEffect { audience_key: self.audience_key, effect: self.effect })
    }
}

fn merged(mut columns: Columns, more: &Columns) -> Columns {
    columns.extend(more.iter().map(|(name, value)| (name.clone(), value.clone())));
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{RowId, TableName, Value};
    use crate::patch::fold;

    fn patches(effects: &[Effect]) -> Vec<Patch> {
        (0..)
            .zip(effects)
            .map(|(sequence, effect)| Patch {
                sequence,
                table: TableName::new("t").expect("ok"),
                row_id: RowId::new("r").expect("ok"),
                audience_key: AudienceKey::new("a").expect("ok"),
                effect: effect.clone(),
            })
            .collect()
    }

    fn columns(x: i64) -> Columns {
        Columns::from([("x".to_owned(), Value::Integer(x)), ("y".to_owned(), Value::Integer(-x))])
    }

    #[test]
    fn created_and_removed_in_one_action_is_nothing() {
        assert!(net_effects(&patches(&[Effect::Insert(columns(1)), Effect::Delete])).is_empty());
    }

    #[test]
    fn replaced_and_removed_is_a_delete_of_what_was_there() {
        let effects = [Effect::Delete, Effect::Insert(columns(1)), Effect::Delete];
        let net = net_effects(&patches(&effects));
        assert_eq!(net.values().next().map(|net| &net.effect), Some(&Effect::Delete));
    }

    /// Effects that an action can really have on a row that is, or is not, there.
    fn arb_effects() -> impl Strategy<Value = (Option<Columns>, Vec<Effect>)> {
        (any::<bool>(), prop::collection::vec((0..3u8, 0..4i64, any::<bool>()), 0..6)).prop_map(|(there, steps)| {
            let before = there.then(|| columns(9));
            let mut present = there;
            let effects = steps
                .into_iter()
                .map(|(kind, x, both)| {
                    let effect = match (present, kind) {
                        (false, _) => Effect::Insert(columns(x)),
                        (true, 0) => Effect::Delete,
                        (true, _) if both => Effect::Update(columns(x)),
                        (true, _) => Effect::Update(Columns::from([("x".to_owned(), Value::Integer(x))])),
                    };
                    present = effect != Effect::Delete;
                    effect
                })
                .collect();
            (before, effects)
        })
    }

    proptest! {
        #[test]
        fn the_net_effect_folds_like_its_parts((before, effects) in arb_effects()) {
            let stepwise = effects.iter().fold(before.clone(), fold);
            let net = net_effects(&patches(&effects));
            let at_once = net.values().fold(before, |row, net| fold(row, &net.effect));
            prop_assert_eq!(stepwise, at_once);
        }
    }
}
