//! Rules of undo: a rewind leaves every row bit by bit as it was, whatever was done to it.

use std::collections::BTreeSet;

use super::StoreFixture;
use super::subject::{Rows, act, action, row, rows, step, try_act};
use super::values::awkward;
use crate::model::{ActionId, RowKey};
use crate::store::StoreTxn;

/// From every awkward value of a kind to every other, and out of nothing: a rewind brings back the first.
pub fn a_rewind_takes_back_every_kind_of_value(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    for (column, values) in awkward() {
        let insert = format!("INSERT INTO things (id, {column}, audience_key) VALUES ('t', ?, 'p')");
        let update = format!("UPDATE things SET {column} = ?");
        for first in &values {
            for second in &values {
                step(&mut store, |txn| {
                    try_act(txn, action(1), &[(&insert, std::slice::from_ref(first))]).expect("inserts");
                    let inserted = rows(txn);
                    try_act(txn, action(2), &[(&update, std::slice::from_ref(second))]).expect("updates");
                    assert_eq!(rows(txn).remove(&row("things", "t")).expect("is there").1[column], *second);
                    txn.rewind(action(2)).expect("rewinds");
                    assert_eq!(rows(txn), inserted, "{column}: back to a {}", first.kind());
                    try_act(txn, action(3), &[("DELETE FROM things", &[])]).expect("deletes");
                    txn.rewind(action(3)).expect("rewinds");
                    assert_eq!(rows(txn), inserted, "{column}: a {} comes back", first.kind());
                    txn.rewind(action(1)).expect("rewinds");
                    assert_eq!(rows(txn), Rows::new());
                });
            }
        }
    }
}

/// A rewind starts at the action's first effect, and names the rows that it touched.
pub fn a_rewind_takes_back_what_came_later_and_nothing_else(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO things (id, label, audience_key) VALUES ('a', 'a', 'p'), ('b', 'b', 'p')"]);
        let after_first = rows(txn);
        act(txn, action(2), &["UPDATE things SET number = 2 WHERE id = 'a'", "DELETE FROM things WHERE id = 'a'"]);
        act(txn, action(3), &["INSERT INTO things (id, label, audience_key) VALUES ('c', 'a', 'p')"]);
        assert_eq!(txn.rewind(action(4)).expect("nothing to rewind"), []);
        let touched: BTreeSet<RowKey> = txn.rewind(action(2)).expect("rewinds").into_iter().collect();
        assert_eq!(touched, BTreeSet::from([row("things", "a"), row("things", "c")]));
        assert_eq!(rows(txn), after_first);
        for (n, has) in [(1, true), (2, false), (3, false)] {
            assert_eq!(txn.has_effects(action(n)).expect("reads"), has, "action {n}");
        }
        assert_eq!(txn.captured(action(3)).expect("reads"), []);
        assert_eq!(txn.captured(action(1)).expect("reads").len(), 2);
    });
}

/// The actions with the oldest and the newest undo, in the order in which they were applied.
pub fn the_ends_of_undo_are_known(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        let ends = || (txn.oldest_undone().expect("reads"), txn.newest_undone().expect("reads"));
        assert_eq!(ends(), (None, None));
        act(txn, action(7), &["INSERT INTO things (id, audience_key) VALUES ('a', 'p'), ('b', 'p')"]);
        assert_eq!(ends(), (Some(action(7)), Some(action(7))));
        act(txn, action(3), &["DELETE FROM things"]);
        assert_eq!(ends(), (Some(action(7)), Some(action(3))));
        txn.rewind(action(3)).expect("rewinds");
        assert_eq!(ends(), (Some(action(7)), Some(action(7))));
        assert_eq!(txn.check_file().expect("checks"), Vec::<String>::new(), "an intact file has no faults");
    });
}

/// What REPLACE and a cascade removed comes back with all its columns, children included.
pub fn a_rewind_restores_replaced_rows_and_cascades(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let before = step(&mut store, |txn| {
        act(
            txn,
            action(1),
            &[
                "INSERT INTO things (id, label, number, ratio, flag, document, data, audience_key) \
                 VALUES ('t', 'one', 7, 0.5, TRUE, '{\"a\":null}', x'00ff', 'p'), ('u', 'two', 8, NULL, FALSE, NULL, x'', 'q')",
                "INSERT INTO parts (id, thing, name, audience_key) VALUES ('a', 't', NULL, 'p'), ('b', 'u', '', 'q')",
                "INSERT INTO notes (id, owner, body) VALUES ('n', 'bob', 'x')",
            ],
        );
        rows(txn)
    });
    let upheavals: [&[&str]; 4] = [
        // One row that breaks two constraints removes two, and their children.
        &["INSERT OR REPLACE INTO things (id, label, audience_key) VALUES ('t', 'two', 'p')"],
        &["DELETE FROM things", "INSERT INTO things (id, label, audience_key) VALUES ('u', 'one', 'z')"],
        &["REPLACE INTO notes (id, owner, body) VALUES ('n', 'carol', NULL)", "DELETE FROM notes"],
        &["UPDATE parts SET thing = 'u'", "DELETE FROM things WHERE id = 'u'", "DELETE FROM parts"],
    ];
    for upheaval in upheavals {
        step(&mut store, |txn| act(txn, action(2), upheaval));
        let after = step(&mut store, |txn| {
            txn.rewind(action(2)).expect("rewinds");
            rows(txn)
        });
        assert_eq!(after, before, "{upheaval:?}");
    }
}

/// An id that is removed and inserted anew, under another audience even, is rewound step by step.
pub fn a_rewind_restores_a_row_inserted_anew(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let lives: [&[&str]; 4] = [
        &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'first', 'p')"],
        &["DELETE FROM things", "INSERT INTO things (id, number, audience_key) VALUES ('t', 2, 'q')"],
        &["DELETE FROM things"],
        &["INSERT INTO things (id, ratio, audience_key) VALUES ('t', 0.25, 'p')", "UPDATE things SET ratio = NULL"],
    ];
    let mut states = vec![Rows::new()];
    for (n, life) in (1..).zip(lives) {
        states.push(step(&mut store, |txn| {
            act(txn, action(n), life);
            rows(txn)
        }));
    }
    for n in (1..=lives.len()).rev() {
        let back = step(&mut store, |txn| {
            txn.rewind(action(n as u128)).expect("rewinds");
            rows(txn)
        });
        assert_eq!(back, states[n - 1], "before life {n}");
    }
}

const START: &str =
    "INSERT INTO things (id, label, number, audience_key) VALUES ('t', 'one', 1, 'p'), ('u', NULL, NULL, 'p')";
const MOVES: [&[&str]; 5] = [
    &[
        "UPDATE OR REPLACE things SET label = 'x', data = x'' WHERE id = 't'",
        "UPDATE things SET label = NULL WHERE label = 'one'",
    ],
    &["INSERT OR REPLACE INTO things (id, label, document, audience_key) VALUES ('u', 'x', 'null', 'p')"],
    &[
        "DELETE FROM things WHERE id = 't'",
        "INSERT OR IGNORE INTO things (id, label, audience_key) VALUES ('u', 'y', 'p')",
    ],
    &[
        "INSERT INTO things (id, label, ratio, audience_key) VALUES ('t', '', 0.1, 'p') \
         ON CONFLICT (id) DO UPDATE SET label = NULL, ratio = coalesce(things.ratio, 0) + 1",
        "INSERT OR REPLACE INTO parts (id, thing, audience_key) VALUES ('a', 't', 'p')",
    ],
    &["UPDATE things SET number = coalesce(number, 9007199254740993) + 1", "DELETE FROM things WHERE label = ''"],
];

/// The same actions in all 120 orders: after each run, a rewind to every earlier point brings back its rows exactly.
pub fn any_order_rewinds_bit_by_bit(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| act(txn, action(100), &[START]));
    for order in orders(MOVES.len()) {
        step(&mut store, |txn| {
            let states: Vec<(ActionId, Rows)> = order
                .iter()
                .map(|&index| {
                    let before = rows(txn);
                    let id = action(index as u128 + 1);
                    act(txn, id, MOVES[index]);
                    (id, before)
                })
                .collect();
            let end = rows(txn);
            rewind_through(txn, &states, &order);
            for &index in &order {
                act(txn, action(index as u128 + 1), MOVES[index]);
            }
            assert_eq!(rows(txn), end, "the same order ends the same: {order:?}");
            rewind_through(txn, &states, &order);
        });
    }
}

/// Newest first, as far as each action has effects; the rows before it are as they were.
fn rewind_through(txn: &dyn StoreTxn, states: &[(ActionId, Rows)], order: &[usize]) {
    for (id, before) in states.iter().rev() {
        txn.rewind(*id).expect("rewinds");
        assert_eq!(rows(txn), *before, "{order:?}, back to before {id}");
    }
}

/// Every order of `0..count`.
fn orders(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![Vec::new()], |shorter, next| {
        shorter
            .iter()
            .flat_map(|order| {
                (0..=order.len()).map(move |place| {
                    let mut longer = order.clone();
                    longer.insert(place, next);
                    longer
                })
            })
            .collect()
    })
}
