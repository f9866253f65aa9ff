//! The effective patch: an action's shared patch with the newest amendment of each row laid over it.

use crate::model::{Effect, Patch, RowKey, ServerIngestId};

/// What a correction makes of one row of the action that it amends.
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
/// can. An amended row has one effect, in the place of the row's last one; rows that only an amendment knows come last.
#[must_use]
pub fn effective_patch(shared: &[Patch], amendments: &[Amendment]) -> Vec<Patch> {
    let newest = newest_by_row(amendments);
    let mut effective = Vec::with_capacity(shared.len() + newest.len());
    for (index, patch) in shared.iter().enumerate() {
        let key = patch.row_key();
        match newest.iter().find(|(row, _)| *row == key) {
            None => effective.push(patch.clone()),
            Some((_, amendment)) => {
                let last = !shared[index + 1..].iter().any(|later| later.row_key() == key);
                if last {
                    effective.push(amendment.patch.clone());
                }
            }
        }
    }
    let added = newest.iter().filter(|(row, _)| !shared.iter().any(|patch| patch.row_key() == *row));
    effective.extend(added.map(|(_, amendment)| amendment.patch.clone()));
    effective.retain(|patch| patch.effect != Effect::Nothing);
    for (sequence, patch) in (0..).zip(&mut effective) {
        patch.sequence = sequence;
    }
    effective
}

/// The newest amendment of each row, in order of the row's first amendment.
fn newest_by_row(amendments: &[Amendment]) -> Vec<(RowKey, &Amendment)> {
    let age = |amendment: &Amendment| amendment.server_ingest_id.map_or(i64::MAX, ServerIngestId::get);
    let mut newest: Vec<(RowKey, &Amendment)> = Vec::new();
    for amendment in amendments {
        let key = amendment.patch.row_key();
        match newest.iter_mut().find(|(row, _)| *row == key) {
            Some((_, known)) if age(known) <= age(amendment) => *known = amendment,
            Some(_) => {}
            None => newest.push((key, amendment)),
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AudienceKey, Columns, RowId, TableName, Value};

    fn patch(sequence: u32, row: &str, effect: Effect) -> Patch {
        Patch {
            sequence,
            table: TableName::new("t").expect("ok"),
            row_id: RowId::new(row).expect("ok"),
            audience_key: AudienceKey::new("a").expect("ok"),
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
}
