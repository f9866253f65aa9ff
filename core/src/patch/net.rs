//! What a list of effects comes to, row by row.
//!
//! A row is its table, its id and its audience: one that is moved is deleted in one audience and inserted in another.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::model::{AudienceRow, Columns, Effect, Patch};

/// An action's whole effect, by row: equal in every fold to the effects it was made of. Rows that it created and removed
/// again are not in it.
pub type NetEffects = BTreeMap<AudienceRow, Effect>;

/// Folds an action's effects, in sequence, to one effect per row.
///
/// Columns that were set and set back stay in an UPDATE: the action did write them.
#[must_use]
pub fn net_effects<'a>(patches: impl IntoIterator<Item = &'a Patch>) -> NetEffects {
    let mut rows: BTreeMap<AudienceRow, Row> = BTreeMap::new();
    for patch in patches {
        match rows.entry(patch.audience_row()) {
            Entry::Occupied(row) => row.into_mut().add(&patch.effect),
            Entry::Vacant(place) => drop(place.insert(Row::first(&patch.effect))),
        }
    }
    rows.into_iter().filter_map(|(row, effects)| effects.net().map(|net| (row, net))).collect()
}

struct Row {
    /// Whether the row was there before the action: all but a first INSERT say so.
    was_there: bool,
    effect: Effect,
}

impl Row {
    fn first(effect: &Effect) -> Self {
        Self { was_there: !matches!(effect, Effect::Insert(_)), effect: effect.clone() }
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

    fn net(self) -> Option<Effect> {
        let vanished = self.effect == Effect::Delete && !self.was_there;
        (!vanished).then_some(self.effect)
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
    use crate::model::{AudienceKey, RowId, TableName, Value};
    use crate::patch::fold;

    /// Effects on one id, each in an audience.
    fn patches(effects: &[(&str, Effect)]) -> Vec<Patch> {
        (0..)
            .zip(effects)
            .map(|(sequence, (audience, effect))| Patch {
                sequence,
                table: TableName::new("t").expect("ok"),
                row_id: RowId::new("r").expect("ok"),
                audience_key: AudienceKey::new(*audience).expect("ok"),
                effect: effect.clone(),
            })
            .collect()
    }

    fn net(effects: &[(&str, Effect)]) -> Vec<(String, Effect)> {
        let net = net_effects(&patches(effects));
        net.into_iter().map(|(row, effect)| (row.audience_key.to_string(), effect)).collect()
    }

    fn columns(x: i64) -> Columns {
        Columns::from([("x".to_owned(), Value::Integer(x)), ("y".to_owned(), Value::Integer(-x))])
    }

    #[test]
    fn created_and_removed_in_one_action_is_nothing() {
        assert_eq!(net(&[("p", Effect::Insert(columns(1))), ("p", Effect::Delete)]), []);
    }

    #[test]
    fn replaced_and_removed_is_a_delete_of_what_was_there() {
        let effects = [("p", Effect::Delete), ("p", Effect::Insert(columns(1))), ("p", Effect::Delete)];
        assert_eq!(net(&effects), [("p".to_owned(), Effect::Delete)]);
    }

    #[test]
    fn moved_is_a_delete_in_one_audience_and_an_insert_in_the_other() {
        let insert = Effect::Insert(columns(1));
        let expected = [("p".to_owned(), insert.clone()), ("q".to_owned(), Effect::Delete)];
        assert_eq!(net(&[("q", Effect::Delete), ("p", insert)]), expected);
    }

    type Rows = BTreeMap<AudienceRow, Columns>;

    fn folded(mut rows: Rows, row: AudienceRow, effect: &Effect) -> Rows {
        if let Some(columns) = fold(rows.remove(&row), effect) {
            rows.insert(row, columns);
        }
        rows
    }

    /// Effects that an action can really have on an id that is in an audience, or in none: it may move.
    fn arb_effects() -> impl Strategy<Value = (Rows, Vec<Patch>)> {
        const AUDIENCES: [&str; 3] = ["p", "q", "r"];
        let step = (0..3u8, 0..4i64, any::<bool>(), 0..AUDIENCES.len());
        (prop::option::of(0..AUDIENCES.len()), prop::collection::vec(step, 0..8)).prop_map(|(there, steps)| {
            let mut home = there.map(|index| AUDIENCES[index]);
            let before = home.map(|home| (patches(&[(home, Effect::Delete)])[0].audience_row(), columns(9)));
            let mut effects = Vec::new();
            for (kind, x, both, index) in steps {
                let effect = match (home, kind) {
                    (None, _) => Effect::Insert(columns(x)),
                    (Some(_), 0) => Effect::Delete,
                    (Some(_), _) if both => Effect::Update(columns(x)),
                    (Some(_), _) => Effect::Update(Columns::from([("x".to_owned(), Value::Integer(x))])),
                };
                let audience = home.unwrap_or(AUDIENCES[index]);
                home = (effect != Effect::Delete).then_some(audience);
                effects.push((audience, effect));
            }
            (before.into_iter().collect(), patches(&effects))
        })
    }

    proptest! {
        #[test]
        fn the_net_effect_folds_like_its_parts((before, effects) in arb_effects()) {
            let stepwise = effects.iter().fold(before.clone(), |rows, patch| folded(rows, patch.audience_row(), &patch.effect));
            let at_once = net_effects(&effects).into_iter().fold(before, |rows, (row, effect)| folded(rows, row, &effect));
            prop_assert_eq!(stepwise, at_once);
        }
    }
}
