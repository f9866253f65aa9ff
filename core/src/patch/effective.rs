//! The effective patch: an action's shared patch with the newest amendment of each row laid over it.

use std::collections::BTreeMap;

use crate::model::{AudienceRow, Effect, Patch, ServerIngestId};

/// What a correction makes of one row of the action that it amends, in one audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amendment {
    /// The row and its new effect, [`Effect::Nothing`] for none.
    pub patch: Patch,
    /// The correction's number; `None` for one that is not uploaded yet, which counts as newest of all.
    pub server_ingest_id: Option<ServerIngestId>,
}

/// Lays the newest amendment of each row over an action's own patch, in sequence.
///
/// Effects of rows without an amendment stay as they are, one by one, so that an action that swaps unique values still
/// can. An amended row has one effect, in the place of the row's last one; rows that only an amendment knows come last. But
/// what an amendment deletes goes first: a row leaves one audience before it comes into another.
#[must_use]
pub fn effective_patch(shared: &[Patch], amendments: &[Amendment]) -> Vec<Patch> {
    let mut effective = if amendments.is_empty() { shared.to_vec() } else { amended(shared, amendments) };
    for (sequence, patch) in (0..).zip(&mut effective) {
        patch.sequence = sequence;
    }
    effective
}

fn amended(shared: &[Patch], amendments: &[Amendment]) -> Vec<Patch> {
    let newest = newest_by_row(amendments);
    let mut unplaced = newest.clone();
    let mut effective = Vec::with_capacity(shared.len() + newest.len());
    for patch in shared.iter().rev() {
        let row = patch.audience_row();
        if newest.contains_key(&row) {
            effective.extend(unplaced.remove(&row));
        } else {
            effective.push(patch);
        }
    }
    effective.reverse();
    effective.extend(amendments.iter().filter_map(|amendment| unplaced.remove(&amendment.patch.audience_row())));
    let is_removal = |patch: &Patch| patch.effect == Effect::Delete && newest.contains_key(&patch.audience_row());
    let (removals, others): (Vec<_>, Vec<_>) = effective.into_iter().partition(|patch| is_removal(patch));
    let all = removals.into_iter().chain(others);
    all.filter(|patch| patch.effect != Effect::Nothing).cloned().collect()
}

/// The newest amendment of each row.
fn newest_by_row(amendments: &[Amendment]) -> BTreeMap<AudienceRow, &Patch> {
    let age = |amendment: &&Amendment| amendment.server_ingest_id.map_or(i64::MAX, ServerIngestId::get);
    let mut oldest_first: Vec<&Amendment> = amendments.iter().collect();
    oldest_first.sort_by_key(age);
    oldest_first.into_iter().map(|amendment| (amendment.patch.audience_row(), &amendment.patch)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AudienceKey, Columns, RowId, TableName, Value};

    fn patch(sequence: u32, row: &str, effect: Effect) -> Patch {
        patch_in("a", sequence, row, effect)
    }

    fn patch_in(audience: &str, sequence: u32, row: &str, effect: Effect) -> Patch {
        Patch {
            sequence,
            table: TableName::new("t").expect("ok"),
            row_id: RowId::new(row).expect("ok"),
            audience_key: AudienceKey::new(audience).expect("ok"),
            effect,
        }
    }

    fn set(x: i64) -> Effect {
        Effect::Update(Columns::from([("x".to_owned(), Value::Integer(x))]))
    }

    fn amendment(row: &str, effect: Effect, number: Option<i64>) -> Amendment {
        Amendment { patch: patch(0, row, effect), server_ingest_id: number.map(ServerIngestId::new) }
    }

    #[test]
    fn without_amendments_it_is_the_shared_patch() {
        let shared = [patch(0, "a", set(1)), patch(1, "b", set(2)), patch(2, "a", set(3))];
        assert_eq!(effective_patch(&shared, &[]), shared);
    }

    #[test]
    fn the_newest_amendment_of_a_row_replaces_all_its_effects() {
        let shared = [patch(0, "a", set(1)), patch(1, "b", set(2)), patch(2, "a", set(3))];
        let amendments = [amendment("a", set(8), Some(20)), amendment("a", set(7), Some(10))];
        assert_eq!(effective_patch(&shared, &amendments), [patch(0, "b", set(2)), patch(1, "a", set(8))]);
    }

    #[test]
    fn an_unsent_amendment_is_the_newest() {
        let amendments = [amendment("a", Effect::Nothing, None), amendment("a", set(7), Some(10))];
        assert_eq!(effective_patch(&[patch(0, "a", set(1))], &amendments), []);
    }

    #[test]
    fn an_added_row_comes_last() {
        let effective = effective_patch(&[patch(0, "a", set(1))], &[amendment("z", set(5), Some(1))]);
        assert_eq!(effective, [patch(0, "a", set(1)), patch(1, "z", set(5))]);
    }

    /// A move from `q` to `p`, amended to one from `r`.
    #[test]
    fn an_amendment_replaces_effects_in_its_own_audience_only() {
        let insert = Effect::Insert(Columns::new());
        let shared = [patch_in("q", 0, "a", Effect::Delete), patch_in("p", 1, "a", insert.clone())];
        let amended =
            |audience, effect| Amendment { patch: patch_in(audience, 0, "a", effect), server_ingest_id: None };
        assert_eq!(effective_patch(&shared, &[amended("p", Effect::Nothing)]), shared[..1]);
        let amendments = [amended("q", Effect::Nothing), amended("r", Effect::Delete)];
        let expected = [patch_in("r", 0, "a", Effect::Delete), patch_in("p", 1, "a", insert)];
        assert_eq!(effective_patch(&shared, &amendments), expected, "it leaves before it comes");
    }
}
