//! What arrives beneath other effects takes effect in the order in which its action did it, beside what is not late: so
//! constraints see what they saw on the device.

use synchrotron_core::model::{Effect, Patch};

use crate::fixture::{Theatre, columns, patch, remove, seat};

const PARTS: &str = "
    ALTER TABLE seats ADD place integer UNIQUE;
    CREATE TABLE parts (id text PRIMARY KEY, seat text REFERENCES seats (id), name text, audience_key text);
    CREATE TABLE atoms (id text PRIMARY KEY, part text REFERENCES parts (id), audience_key text);
    GRANT SELECT, INSERT, UPDATE, DELETE ON parts, atoms TO synchrotron_user;";

async fn theatre() -> Theatre {
    Theatre::open_with(PARTS, &["parts", "atoms"], |_| {}).await
}

fn part(row: &str, seat: &str) -> Patch {
    let values = columns([("seat", seat.into()), ("name", row.into())]);
    patch("parts", row, "project:p", Effect::Insert(values))
}

fn atom(row: &str, part: &str) -> Patch {
    patch("atoms", row, "project:p", Effect::Insert(columns([("part", part.into())])))
}

fn gone(table: &str, row: &str) -> Patch {
    patch(table, row, "project:p", Effect::Delete)
}

fn named(row: &str, name: &str) -> Patch {
    patch("parts", row, "project:p", Effect::Update(columns([("name", name.into())])))
}

fn placed(row: &str, place: i64) -> Patch {
    patch("seats", row, "project:p", Effect::Update(columns([("place", place.into())])))
}

fn labelled(row: &str, label: &str) -> Patch {
    patch("seats", row, "project:p", Effect::Update(columns([("label", label.into())])))
}

#[tokio::test]
async fn a_late_child_goes_before_its_parent() {
    let theatre = theatre().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    alice.sync(vec![alice.action(100, vec![seat("A1"), part("c", "A1")])]).await;
    bob.sync(vec![bob.action(120, vec![named("c", "bob's")])]).await;
    alice.sync(vec![alice.action(110, vec![gone("parts", "c"), remove("A1")])]).await;
    assert_eq!((theatre.count("seats").await, theatre.count("parts").await), (0, 0));
}

#[tokio::test]
async fn late_rows_swap_a_unique_value() {
    let theatre = theatre().await;
    let (mut alice, mut bob) = (theatre.device("alice"), theatre.device("bob"));
    let seats = vec![seat("i1"), seat("i2"), placed("i1", 2), placed("i2", 5)];
    alice.sync(vec![alice.action(100, seats)]).await;
    bob.sync(vec![bob.action(120, vec![labelled("i1", "bob's")])]).await;
    let swap = vec![placed("i1", -1), placed("i2", 2), placed("i1", 5)];
    alice.sync(vec![alice.action(110, swap)]).await;
    let both = "SELECT string_agg(id || '=' || place || ' ' || label, ',' ORDER BY id) FROM seats";
    assert_eq!(theatre.scalar(both).await.as_deref(), Some("i1=5 bob's,i2=2 i2"));
    bob.sync(vec![bob.action(130, vec![labelled("i2", "bob's, too")])]).await;
    let back = vec![placed("i1", -1), placed("i2", 5), placed("i1", 2)];
    alice.sync(vec![alice.action(115, back)]).await;
    assert_eq!(theatre.scalar(both).await.as_deref(), Some("i1=2 bob's,i2=5 bob's, too"));
}

#[tokio::test]
async fn a_correction_adds_and_removes_rows_in_its_order() {
    let theatre = theatre().await;
    let mut alice = theatre.device("alice");
    let made = alice.action(10, vec![seat("A1")]);
    alice.sync(vec![made.clone()]).await;
    let at = alice.position(&made);
    let added = vec![seat("A2"), part("p", "A2"), atom("a", "p")];
    alice.sync(vec![alice.correction(at, added.clone())]).await;
    let counts = async || (theatre.count("seats").await, theatre.count("parts").await, theatre.count("atoms").await);
    assert_eq!(counts().await, (2, 1, 1));
    let nothing = |mut patch: Patch| {
        patch.effect = Effect::Nothing;
        patch
    };
    alice.sync(vec![alice.correction(at, added.into_iter().rev().map(nothing).collect())]).await;
    assert_eq!(counts().await, (1, 0, 0));
}
