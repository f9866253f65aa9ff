//! What devices are told of one row: from its staged changes, from what it is now, and from what the log says.
//!
//! Pure. The effects follow everything that the log has of the row, so that after them, log and table agree in what was
//! staged. What is not staged yet has a change of its own to come.

use std::collections::BTreeSet;

use synchrotron_core::model::{AudienceKey, Columns, Effect};

use super::staged::{Changes, StagedRow};

/// A row as it is now, under the locks of the audiences that its staged changes name.
#[derive(Debug, Clone, Default)]
pub(super) struct Present {
    /// Its audience, if that is one of these, and its columns.
    pub(super) row: Option<(AudienceKey, Columns)>,
    /// The audience from which the newest effect in the log removes it, if that effect does.
    pub(super) removed_from: Option<AudienceKey>,
    /// The columns that the log has set, by its fold; `None` if by the log the row is not there. Looked up only for
    /// changes that were made beneath the server.
    pub(super) in_log: Option<Columns>,
}

/// The effects that are missing from the log, in their order, with their audiences.
pub(super) fn missing_effects(staged: &StagedRow, present: &Present) -> Vec<(AudienceKey, Effect)> {
    let here = present.row.as_ref().map(|(audience_key, _)| audience_key);
    let left = staged.audiences.keys().filter(|key| Some(*key) != here && Some(*key) != present.removed_from.as_ref());
    let mut effects: Vec<_> = left.map(|key| (key.clone(), Effect::Delete)).collect();
    if let Some((audience_key, columns)) = &present.row
        && let Some(changes) = staged.audiences.get(audience_key)
        && let Some(effect) = written(changes, columns, present)
    {
        effects.push((audience_key.clone(), effect));
    }
    effects
}

/// What was written to a row that is there.
fn written(changes: &Changes, columns: &Columns, present: &Present) -> Option<Effect> {
    if changes.direct.is_none() && changes.echo.is_none() {
        // It was removed, and made again by an upload, or by a change that is still staged.
        return None;
    }
    let whole = changes.direct.as_ref().is_some_and(|direct| direct.whole);
    let absent_in_log = present.removed_from.is_some() || (changes.echo.is_some() && present.in_log.is_none());
    if whole || absent_in_log {
        return Some(Effect::Insert(columns.clone()));
    }
    let direct: BTreeSet<&String> = changes.direct.iter().flat_map(|direct| &direct.columns).collect();
    let echoed = |name: &String, value| {
        changes.echo.as_ref().is_some_and(|echo| match present.in_log.as_ref().and_then(|known| known.get(name)) {
            Some(known) => known != value,
            None => echo.whole || echo.columns.contains(name),
        })
    };
    let set = columns.iter().filter(|(name, value)| direct.contains(name) || echoed(name, *value));
    let set: Columns = set.map(|(name, value)| (name.clone(), value.clone())).collect();
    (!set.is_empty()).then_some(Effect::Update(set))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use synchrotron_core::model::Value;

    use super::*;
    use crate::capture::staged::{Place, Written};

    fn key(text: &str) -> AudienceKey {
        AudienceKey::new(text).expect("ok")
    }

    fn columns<const N: usize>(pairs: [(&str, i64); N]) -> Columns {
        pairs.map(|(name, value)| (name.to_owned(), Value::Integer(value))).into()
    }

    fn set(whole: bool, names: &[&str]) -> Option<Written> {
        Some(Written { whole, columns: names.iter().map(|name| (*name).to_owned()).collect() })
    }

    fn staged<const N: usize>(audiences: [(&str, Changes); N]) -> StagedRow {
        let place = Place { id: 1, transaction: "1".to_owned() };
        let audiences = BTreeMap::from(audiences.map(|(audience, changes)| (key(audience), changes)));
        StagedRow { first: place.clone(), last: place, audiences }
    }

    fn now(audience: &str, columns: Columns) -> Present {
        Present { row: Some((key(audience), columns)), ..Present::default() }
    }

    #[test]
    fn an_update_carries_what_it_changed_as_it_is_now() {
        let row = staged([("p", Changes { direct: set(false, &["a", "generated"]), echo: None })]);
        let effects = missing_effects(&row, &now("p", columns([("a", 1), ("b", 2)])));
        assert_eq!(effects, [(key("p"), Effect::Update(columns([("a", 1)])))]);
    }

    #[test]
    fn a_row_that_moved_is_removed_and_made() {
        let row = staged([("p", Changes::default()), ("q", Changes { direct: set(true, &[]), echo: None })]);
        let effects = missing_effects(&row, &now("q", columns([("a", 1)])));
        assert_eq!(effects, [(key("p"), Effect::Delete), (key("q"), Effect::Insert(columns([("a", 1)])))]);
        let moved_on = missing_effects(&row, &Present::default());
        assert_eq!(moved_on, [(key("p"), Effect::Delete), (key("q"), Effect::Delete)]);
    }

    #[test]
    fn what_the_log_says_already_is_not_said_again() {
        let gone = Present { removed_from: Some(key("p")), ..Present::default() };
        assert_eq!(missing_effects(&staged([("p", Changes::default())]), &gone), []);
        let echo = staged([("p", Changes { direct: None, echo: set(true, &[]) })]);
        let same = Present { in_log: Some(columns([("a", 1)])), ..now("p", columns([("a", 1)])) };
        assert_eq!(missing_effects(&echo, &same), []);
        let bent = Present { in_log: Some(columns([("a", 1), ("b", 1)])), ..now("p", columns([("a", 1), ("b", 2)])) };
        assert_eq!(missing_effects(&echo, &bent), [(key("p"), Effect::Update(columns([("b", 2)])))]);
    }

    #[test]
    fn a_row_that_the_log_lacks_is_told_whole() {
        let echo = staged([("p", Changes { direct: None, echo: set(false, &["a"]) })]);
        let whole = [(key("p"), Effect::Insert(columns([("a", 1), ("b", 2)])))];
        assert_eq!(missing_effects(&echo, &now("p", columns([("a", 1), ("b", 2)]))), whole);
        let direct = staged([("p", Changes { direct: set(false, &["a"]), echo: None })]);
        let again = Present { removed_from: Some(key("q")), ..now("p", columns([("a", 1), ("b", 2)])) };
        assert_eq!(missing_effects(&direct, &again), whole);
    }

    #[test]
    fn a_removal_that_an_upload_overtook_is_not_told() {
        let effects = missing_effects(&staged([("p", Changes::default())]), &now("p", columns([("a", 1)])));
        assert_eq!(effects, []);
    }
}
