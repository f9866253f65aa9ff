//! Folding one effect into one row.

use crate::model::{Columns, Effect};

/// The row after `effect`: INSERT sets the whole row; UPDATE and DELETE of an absent row do nothing.
///
/// ```
/// use synchrotron_core::model::{Columns, Effect, Value};
/// use synchrotron_core::patch::fold;
/// let row = fold(None, &Effect::Insert(Columns::from([("title".into(), Value::from("a"))])));
/// let row = fold(row, &Effect::Update(Columns::from([("title".into(), Value::Null)])));
/// assert_eq!(row, Some(Columns::from([("title".into(), Value::Null)])));
/// assert_eq!(fold(None, &Effect::Update(Columns::new())), None);
/// ```
#[must_use]
pub fn fold(row: Option<Columns>, effect: &Effect) -> Option<Columns> {
    match (row, effect) {
        (_, Effect::Insert(columns)) => Some(columns.clone()),
        (Some(mut row), Effect::Update(columns)) => {
            row.extend(columns.iter().map(|(name, value)| (name.clone(), value.clone())));
            Some(row)
        }
        (None, Effect::Update(_)) | (_, Effect::Delete) => None,
        (row, Effect::Nothing) => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Value;

    fn columns<const N: usize>(pairs: [(&str, i64); N]) -> Columns {
        pairs.map(|(name, value)| (name.to_owned(), Value::Integer(value))).into()
    }

    #[test]
    fn each_effect_on_a_present_and_on_an_absent_row() {
        let row = Some(columns([("x", 1), ("y", 2)]));
        let cases = [
            (row.clone(), Effect::Insert(columns([("x", 9)])), Some(columns([("x", 9)]))),
            (None, Effect::Insert(columns([("x", 9)])), Some(columns([("x", 9)]))),
            (row.clone(), Effect::Update(columns([("y", 3)])), Some(columns([("x", 1), ("y", 3)]))),
            (None, Effect::Update(columns([("y", 3)])), None),
            (row.clone(), Effect::Delete, None),
            (None, Effect::Delete, None),
            (row.clone(), Effect::Nothing, row),
            (None, Effect::Nothing, None),
        ];
        for (before, effect, after) in cases {
            assert_eq!(fold(before, &effect), after, "{effect:?}");
        }
    }
}
