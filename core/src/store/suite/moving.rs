//! Rules of rows that contend: a row is its table, its id and its audience. Two rows of one id, like two rows of one UNIQUE
//! value, cannot be in their table at once: one of them is displaced, and returns once the place is free.

use std::collections::BTreeMap;

use super::StoreFixture;
use super::subject::{act, action, audience, patch, row, rows, step, thing};
use crate::model::{AudienceKey, AudienceRow, Columns, Effect, Patch, RowKey};
use crate::patch::fold;
use crate::store::StoreTxn;
use crate::wire::SnapshotRow;

/// An effect on the thing `t` of this audience.
fn of(key: &str, effect: Effect) -> Patch {
    Patch { audience_key: audience(key), ..patch(0, "things", "t", effect) }
}

fn insert(key: &str, label: &str) -> Patch {
    of(key, Effect::Insert(thing(label)))
}

fn snapshot_of(id: &str, key: &str, label: &str) -> SnapshotRow {
    let row = row("things", id);
    SnapshotRow { table: row.table, row_id: row.row_id, audience_key: audience(key), columns: thing(label) }
}

/// Where the thing `t` is, if it is in its table.
fn place_of_t(txn: &dyn StoreTxn) -> Option<(AudienceKey, Columns)> {
    rows(txn).remove(&row("things", "t"))
}

fn at(key: &str, label: &str) -> Option<(AudienceKey, Columns)> {
    Some((audience(key), thing(label)))
}

/// An effect is on the row of its own audience, and on no other of the same id.
pub fn an_effect_is_on_the_row_of_its_audience(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'q')"]);
        let before = rows(txn);
        let label = Columns::from([("label".to_owned(), "two".into())]);
        txn.apply_patch(action(2), &[of("p", Effect::Update(label)), of("p", Effect::Delete)]).expect("applies");
        assert_eq!(rows(txn), before);
        assert!(!txn.has_effects(action(2)).expect("reads"));
    });
}

/// A row that moved to another audience, its old audience's log a step behind: the new one has the place, the old one takes
/// its effects aside, and every position is rewound to exactly.
pub fn a_row_that_moved_displaces_the_one_that_it_was(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[insert("q", "one")]).expect("applies");
        let displaced = txn.apply_patch(action(2), &[insert("p", "one")]).expect("applies");
        let facts: Vec<_> = displaced.iter().map(|left| (&left.row, &left.columns[..])).collect();
        let older = AudienceRow { row: row("things", "t"), audience_key: audience("q") };
        assert_eq!(facts, [(&older, &["id".to_owned()][..])]);
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("p", "one"), Ok(true)));
        let label = Columns::from([("label".to_owned(), "aside".into())]);
        txn.apply_patch(action(3), &[of("q", Effect::Update(label))]).expect("applies");
        assert_eq!(place_of_t(txn), at("p", "one"));
        txn.apply_patch(action(4), &[of("p", Effect::Delete)]).expect("applies");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("q", "aside"), Ok(false)), "it returns as it is now");
        for (n, expected, displaced) in
            [(4, at("p", "one"), true), (3, at("p", "one"), true), (2, at("q", "one"), false), (1, None, false)]
        {
            txn.rewind(action(n)).expect("rewinds");
            assert_eq!((place_of_t(txn), txn.has_displaced()), (expected, Ok(displaced)), "before {n}");
        }
    });
}

/// The row that moved is deleted where it was after it was inserted where it is: nothing of the old one comes back.
pub fn a_displaced_row_that_is_deleted_is_gone(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[insert("q", "one")]).expect("applies");
        txn.apply_patch(action(2), &[insert("p", "two")]).expect("applies");
        txn.apply_patch(action(3), &[of("q", Effect::Delete)]).expect("applies");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("p", "two"), Ok(false)));
        txn.rewind(action(3)).expect("rewinds");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("p", "two"), Ok(true)));
        txn.rewind(action(2)).expect("rewinds");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("q", "one"), Ok(false)));
    });
}

/// A row of a snapshot waits for its id as it waits for a UNIQUE value, and takes its place when that is free.
pub fn a_loaded_row_waits_for_its_id(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[insert("q", "one")]).expect("applies");
        txn.load_rows(&[snapshot_of("t", "p", "moved")]).expect("loads");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("q", "one"), Ok(true)));
        txn.apply_patch(action(2), &[of("q", Effect::Delete)]).expect("applies");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("p", "moved"), Ok(false)));
        txn.rewind(action(2)).expect("rewinds");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("q", "one"), Ok(true)));
        txn.forget_audience(&audience("q")).expect("forgets");
        txn.return_displaced().expect("returns");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("p", "moved"), Ok(false)));
    });
}

/// A displaced row goes with its audience; the other one of its id does not.
pub fn a_displaced_row_is_forgotten_with_its_audience(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[insert("q", "one")]).expect("applies");
        txn.load_rows(&[snapshot_of("t", "p", "moved"), snapshot_of("t", "r", "moved again")]).expect("loads");
        txn.forget_audience(&audience("p")).expect("forgets");
        txn.apply_patch(action(2), &[of("q", Effect::Delete)]).expect("applies");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("r", "moved again"), Ok(false)));
    });
}

/// What is rewound finds rows in its way that came with a snapshot since. They are displaced, as by a patch: the rewound
/// rows are exactly as they were.
pub fn a_rewind_displaces_what_came_without_a_trace(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'q')"]);
        act(txn, action(2), &["UPDATE things SET label = 'two' WHERE id = 't'"]);
        act(txn, action(3), &["DELETE FROM things WHERE id = 't'"]);
        // One has its id and the other the value that it had first.
        txn.load_rows(&[snapshot_of("t", "p", "moved"), snapshot_of("u", "p", "one")]).expect("loads");
        let touched = txn.rewind(action(3)).expect("rewinds");
        assert!(touched.contains(&row("things", "t")), "{touched:?}");
        assert_eq!((place_of_t(txn), txn.has_displaced()), (at("q", "two"), Ok(true)));
        let touched = txn.rewind(action(2)).expect("rewinds");
        assert!(touched.contains(&row("things", "u")), "a row that left is touched: {touched:?}");
        assert_eq!(rows(txn).into_iter().collect::<Vec<_>>(), [(row("things", "t"), (audience("q"), thing("one")))]);
        txn.rewind(action(1)).expect("rewinds");
        assert_eq!(rows(txn).len(), 0);
        txn.put_back(action(4)).expect("puts back");
        assert_eq!(place_of_t(txn), at("p", "moved"));
        assert_eq!((rows(txn).len(), txn.has_displaced()), (2, Ok(false)));
        txn.rewind(action(4)).expect("rewinds");
        assert_eq!((rows(txn).len(), txn.has_displaced()), (0, Ok(true)));
    });
}

/// The row in the way was itself displaced at that time, and came back without a trace when the other audience left.
pub fn a_rewind_displaces_what_returned_without_a_trace(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let of_u = |key: &str, id: &str, label: &str| Patch {
        audience_key: audience(key),
        ..patch(0, "things", id, Effect::Insert(thing(label)))
    };
    step(&mut store, |txn| {
        txn.apply_patch(action(1), &[of_u("q", "first", "x")]).expect("applies");
        txn.apply_patch(action(2), &[of_u("p", "second", "x")]).expect("displaces the first");
        txn.apply_patch(action(3), &[of_u("q", "third", "x")]).expect("displaces the second");
        act(txn, action(4), &["DELETE FROM things WHERE id = 'third'"]);
        txn.forget_audience(&audience("p")).expect("forgets");
        txn.return_displaced().expect("returns");
        assert_eq!(rows(txn).into_keys().collect::<Vec<_>>(), [row("things", "first")]);
        txn.rewind(action(4)).expect("rewinds");
        assert_eq!(rows(txn).into_keys().collect::<Vec<_>>(), [row("things", "third")]);
        txn.rewind(action(2)).expect("rewinds");
        assert_eq!(rows(txn).into_keys().collect::<Vec<_>>(), [row("things", "first")]);
        assert_eq!(txn.has_displaced(), Ok(false));
        txn.rewind(action(1)).expect("rewinds");
        assert_eq!(rows(txn).len(), 0);
    });
}

/// Numbers that look random, and are the same at each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("BUG: 31 bits") % end
    }

    /// An effect on one of six rows that contend for two ids and two labels.
    fn patch(&mut self) -> Patch {
        let label = Columns::from([("label".to_owned(), ["x", "y"][self.below(2)].into())]);
        let effect = match self.below(4) {
            0 => Effect::Delete,
            1 => Effect::Update(label),
            _ => Effect::Insert(thing(["x", "y"][self.below(2)])),
        };
        let (id, key) = (["t", "u"][self.below(2)], ["p", "q", "r"][self.below(3)]);
        Patch { audience_key: audience(key), ..patch(0, "things", id, effect) }
    }
}

/// What history makes of each row, by id and audience.
type Fold = BTreeMap<(RowKey, AudienceKey), Columns>;

fn fold_into(folded: &mut Fold, patch: &Patch) {
    let row = (patch.row_key(), patch.audience_key.clone());
    if let Some(columns) = fold(folded.remove(&row), &patch.effect) {
        folded.insert(row, columns);
    }
}

/// What is in its table is as history makes it, and nothing else is missing than what is displaced.
fn assert_shows(txn: &dyn StoreTxn, folded: &Fold, when: &str) {
    let shown = rows(txn);
    for (key, (of, columns)) in &shown {
        assert_eq!(folded.get(&(key.clone(), of.clone())), Some(columns), "{when}: {key:?} of {of}");
    }
    assert_eq!(txn.has_displaced(), Ok(shown.len() < folded.len()), "{when}: {shown:?} of {folded:?}");
}

/// Applies random patches as this action.
fn apply_random(txn: &dyn StoreTxn, n: u128, dice: &mut Dice, folded: &mut Fold) {
    let patches = [dice.patch(), dice.patch()];
    patches.iter().for_each(|patch| fold_into(folded, patch));
    txn.apply_patch(action(n), &patches).expect("applies");
    assert_shows(txn, folded, &format!("after {n}"));
    assert!(folded.is_empty() || !rows(txn).is_empty(), "after {n}: a free place is taken");
}

/// Six rows contend for two ids and two UNIQUE values, in many histories: every position is rewound to exactly.
pub fn contending_rows_are_rewound_exactly(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    for seed in 0..60 {
        step(&mut store, |txn| {
            let mut dice = Dice(seed);
            let mut folded = Fold::new();
            let mut states = Vec::new();
            for n in 1..=12 {
                states.push((n, rows(txn), folded.clone()));
                apply_random(txn, n, &mut dice, &mut folded);
            }
            for (n, before, folded) in states.into_iter().rev() {
                txn.rewind(action(n)).expect("rewinds");
                assert_eq!(rows(txn), before, "seed {seed}, before {n}");
                assert_shows(txn, &folded, &format!("seed {seed}, before {n}"));
            }
        });
    }
}

/// The same, and half-way one audience is taken from a snapshot: what is rewound beneath it is exact in the other audiences,
/// and the snapshot's rows are there or displaced.
pub fn contending_rows_are_rewound_beneath_a_snapshot(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    for seed in 0..40 {
        step(&mut store, |txn| {
            let mut dice = Dice(seed);
            let mut folded = Fold::new();
            let mut states = Vec::new();
            for n in 1..=6 {
                states.push((n, folded.clone()));
                apply_random(txn, n, &mut dice, &mut folded);
            }
            let loaded = match dice.below(3) {
                0 => vec![snapshot_of("t", "p", "x"), snapshot_of("u", "p", "y")],
                1 => vec![snapshot_of("u", "p", "x")],
                _ => Vec::new(),
            };
            txn.forget_audience(&audience("p")).expect("forgets");
            txn.load_rows(&loaded).expect("loads");
            txn.return_displaced().expect("returns");
            for state in states.iter_mut().map(|(_, state)| state).chain([&mut folded]) {
                state.retain(|(_, of), _| *of != audience("p"));
                state.extend(loaded.iter().map(|row| {
                    let key = RowKey { table: row.table.clone(), row_id: row.row_id.clone() };
                    ((key, row.audience_key.clone()), row.columns.clone())
                }));
            }
            assert_shows(txn, &folded, &format!("seed {seed}, loaded"));
            for n in 7..=12 {
                states.push((n, folded.clone()));
                apply_random(txn, n, &mut dice, &mut folded);
            }
            for (n, folded) in states.into_iter().rev() {
                txn.rewind(action(n)).expect("rewinds");
                assert_shows(txn, &folded, &format!("seed {seed}, before {n}"));
            }
            txn.forget_audience(&audience("p")).expect("forgets");
        });
    }
}
