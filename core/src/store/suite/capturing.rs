//! Rules of capture: what statements of an action do to rows, and nothing else, becomes its effects.

use super::StoreFixture;
use super::subject::{act, action, audience, columns, patch, rows, step, thing, try_act};
use super::values::awkward;
use crate::model::{Columns, Effect, Patch, Value};
use crate::store::{Store, StoreTxn};

const THING: &str = "INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'p')";

/// A store that holds the thing `t`, made by action 1.
fn with_thing(fixture: &impl StoreFixture) -> impl Store {
    let mut store = fixture.open();
    step(&mut store, |txn| act(txn, action(1), &[THING]));
    store
}

/// What these statements do, as action 2.
fn effects(store: &mut impl Store, statements: &[&str]) -> Vec<Patch> {
    step(store, |txn| act(txn, action(2), statements))
}

/// An INSERT carries every column, unset ones as null, but not the key, the audience or generated ones.
pub fn an_insert_carries_every_column(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let captured = effects(&mut store, &[THING, "INSERT INTO notes (id, owner, body) VALUES ('n', 'bob', 'hello')"]);
    let mut note = patch(1, "notes", "n", Effect::Insert(columns([("body", "hello".into()), ("owner", "bob".into())])));
    note.audience_key = audience("user:bob");
    assert_eq!(captured, [patch(0, "things", "t", Effect::Insert(thing("one"))), note]);
}

/// An UPDATE carries the columns that changed, also those that became null, also where an upsert does it.
pub fn an_update_carries_only_what_changed(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    let captured = effects(
        &mut store,
        &[
            "UPDATE things SET label = 'one', number = 7, ratio = NULL",
            "UPDATE things SET number = NULL",
            "INSERT INTO things (id, label, audience_key) VALUES ('t', 'up', 'p') \
             ON CONFLICT (id) DO UPDATE SET label = excluded.label",
        ],
    );
    let update = |sequence, name: &str, value: Value| {
        patch(sequence, "things", "t", Effect::Update(Columns::from([(name.to_owned(), value)])))
    };
    assert_eq!(
        captured,
        [update(0, "number", 7.into()), update(1, "number", Value::Null), update(2, "label", "up".into())]
    );
}

/// A DELETE carries no columns.
pub fn a_delete_carries_no_columns(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    assert_eq!(effects(&mut store, &["DELETE FROM things"]), [patch(0, "things", "t", Effect::Delete)]);
}

/// The row that REPLACE removes is an effect too, whichever constraint it broke.
pub fn a_replaced_row_is_deleted_and_inserted(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    let same_label =
        effects(&mut store, &["INSERT OR REPLACE INTO things (id, label, audience_key) VALUES ('u', 'one', 'p')"]);
    let expected = [patch(0, "things", "t", Effect::Delete), patch(1, "things", "u", Effect::Insert(thing("one")))];
    assert_eq!(same_label, expected);
    let same_id = step(&mut store, |txn| {
        act(txn, action(3), &["REPLACE INTO things (id, label, audience_key) VALUES ('u', 'two', 'p')"])
    });
    let expected = [patch(0, "things", "u", Effect::Delete), patch(1, "things", "u", Effect::Insert(thing("two")))];
    assert_eq!(same_id, expected);
}

/// Rows that a foreign key removes are effects of the action that removed their parent.
pub fn a_cascade_is_captured(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    effects(&mut store, &["INSERT INTO parts (id, thing, audience_key) VALUES ('a', 't', 'p'), ('b', 't', 'p')"]);
    let captured = step(&mut store, |txn| act(txn, action(3), &["DELETE FROM things WHERE id = 't'"]));
    let mut removed: Vec<_> = captured.iter().map(|patch| (patch.row_id.as_str(), patch.effect.clone())).collect();
    removed.sort_by_key(|(id, _)| *id);
    assert_eq!(removed, ["a", "b", "t"].map(|id| (id, Effect::Delete)));
    assert!(captured.iter().map(|patch| patch.sequence).eq(0..3), "{captured:?}");
}

/// A statement that leaves every row as it was has no effect.
pub fn what_changes_nothing_is_no_effect(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    let captured = effects(
        &mut store,
        &[
            "UPDATE things SET label = 'one', number = NULL",
            "UPDATE things SET label = 'x' WHERE id = 'absent'",
            "DELETE FROM things WHERE id = 'absent'",
            "INSERT OR IGNORE INTO things (id, label, audience_key) VALUES ('u', 'one', 'p')",
            "INSERT INTO things (id, label, audience_key) VALUES ('t', 'x', 'p') ON CONFLICT DO NOTHING",
        ],
    );
    assert_eq!(captured, []);
    assert!(!step(&mut store, |txn| txn.has_effects(action(2)).expect("reads")));
}

/// A change that the column's own collation does not see is a change.
pub fn a_value_that_a_collation_calls_equal_is_captured(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    effects(&mut store, &["INSERT INTO parts (id, name, audience_key) VALUES ('a', 'berlin', 'p')"]);
    let captured =
        step(&mut store, |txn| act(txn, action(3), &["UPDATE parts SET name = 'Berlin' WHERE name = 'BERLIN'"]));
    assert_eq!(captured, [patch(0, "parts", "a", Effect::Update(columns([("name", "Berlin".into())])))]);
    step(&mut store, |txn| {
        let before = rows(txn);
        txn.rewind(action(3)).expect("rewinds");
        assert_eq!(rows(txn)[&super::subject::row("parts", "a")].1["name"], "berlin".into());
        assert_ne!(rows(txn), before);
    });
}

/// A statement that fails half-way leaves neither rows nor effects; those of statements before it stay.
pub fn a_failed_statement_leaves_no_effect(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    step(&mut store, |txn| {
        let halfway = "INSERT INTO things (id, label, audience_key) VALUES ('u', 'two', 'p'), ('v', 'one', 'p')";
        let before = rows(txn);
        try_act(txn, action(2), &[(halfway, &[])]).expect_err("the label is taken");
        assert_eq!(rows(txn), before);
        assert_eq!(txn.captured(action(2)).expect("reads"), []);
        let update = "UPDATE things SET number = 1";
        try_act(txn, action(3), &[(update, &[]), (halfway, &[])]).expect_err("the label is taken");
        let number = Effect::Update(columns([("number", 1.into())]));
        assert_eq!(txn.captured(action(3)).expect("reads"), [patch(0, "things", "t", number)]);
    });
}

/// Effects belong to the action that ran, each counted from 0, also within one transaction.
pub fn effects_of_actions_stay_apart(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    step(&mut store, |txn| {
        let set = |number: i64| Effect::Update(columns([("number", number.into())]));
        let first = act(txn, action(2), &["UPDATE things SET number = 2"]);
        let second = act(txn, action(3), &["UPDATE things SET number = 3", "UPDATE things SET number = 4"]);
        assert_eq!(first, [patch(0, "things", "t", set(2))]);
        assert_eq!(second, [patch(0, "things", "t", set(3)), patch(1, "things", "t", set(4))]);
        assert_eq!(txn.captured(action(2)).expect("reads"), first);
    });
}

/// A value is captured exactly as a query reads it back; all but NaN is read back exactly as it was given.
pub fn every_kind_of_value_is_captured_as_it_is_stored(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    let mut next = 1;
    let mut set = |txn: &dyn StoreTxn, column: &str, value: &Value| {
        next += 1;
        let update = format!("UPDATE things SET {column} = ?");
        try_act(txn, action(next), &[(&update, std::slice::from_ref(value))]).expect("is stored");
        let read = rows(txn).remove(&super::subject::row("things", "t")).expect("is there").1.remove(column);
        let captured = txn.captured(action(next)).expect("reads");
        (read.expect("a column"), captured)
    };
    step(&mut store, |txn| {
        for (column, values) in awkward() {
            for value in values {
                let (read, captured) = set(txn, column, &value);
                assert_eq!(read, value, "{column} is read as given");
                for patch in captured {
                    let columns = Columns::from([(column.to_owned(), value.clone())]);
                    assert_eq!(patch.effect, Effect::Update(columns), "{column} is captured as given");
                }
            }
        }
        // A store may keep no sign of zero; then the patch has none either.
        set(txn, "ratio", &Value::Real(1.0));
        let (read, captured) = set(txn, "ratio", &Value::Real(-0.0));
        assert_eq!(captured[0].effect, Effect::Update(columns([("ratio", read)])));
        let nan = [Value::Real(f64::NAN)];
        try_act(txn, action(9_999), &[("UPDATE things SET ratio = ?", &nan)]).expect_err("NaN is refused");
    });
}

/// A row keeps its id and its audience for life, plain or generated.
pub fn id_and_audience_never_change(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    step(&mut store, |txn| {
        act(txn, action(2), &["INSERT INTO notes (id, owner) VALUES ('n', 'bob')"]);
        let before = rows(txn);
        for refused in [
            "UPDATE things SET audience_key = 'q'",
            "UPDATE things SET id = 'u'",
            "UPDATE notes SET owner = 'carol'",
            "INSERT INTO things (id, audience_key) VALUES ('e', '')",
            "INSERT INTO things (id, audience_key) VALUES (NULL, 'p')",
        ] {
            try_act(txn, action(3), &[(refused, &[])]).expect_err(refused);
        }
        assert_eq!(rows(txn), before);
    });
}

/// Application rows are closed but for the time that an action runs, a patch is applied, or history is rewound.
pub fn writes_outside_an_action_are_refused(fixture: &impl StoreFixture) {
    let mut store = with_thing(fixture);
    let refused = |txn: &dyn StoreTxn, when: &str| {
        for write in ["UPDATE things SET number = 9", "DELETE FROM things", THING] {
            txn.as_sql().execute(write, &[]).expect_err(when);
        }
    };
    step(&mut store, |txn| {
        refused(txn, "before any action");
        act(txn, action(2), &["UPDATE things SET number = 1"]);
        refused(txn, "after an action");
        try_act(txn, action(3), &[("INSERT INTO nowhere VALUES (1)", &[])]).expect_err("no such table");
        refused(txn, "after a failed action");
        txn.apply_patch(action(4), &[patch(0, "things", "t", Effect::Update(columns([("number", 2.into())])))])
            .expect("applies");
        refused(txn, "after a patch");
        let unstorable = Effect::Update(columns([("number", f64::NAN.into())]));
        txn.apply_patch(action(5), &[patch(0, "things", "t", unstorable)]).expect_err("cannot be stored");
        refused(txn, "after a patch that failed");
        txn.rewind(action(4)).expect("rewinds");
        refused(txn, "after a rewind");
        txn.begin_action(action(6)).expect("begins");
    });
    step(&mut store, |txn| refused(txn, "in the next transaction, though an action was never ended"));
    drop(store);
    step(&mut fixture.open(), |txn| refused(txn, "after opening again"));
}
