//! COR: the server applies a correction's rows in their order, under its own foreign keys. So what is taken back goes
//! first, last effect first, and what is given comes in the order in which the run did it.

use synchrotron_core::model::{Effect, Patch};
use synchrotron_core::wire::LogRecord;

use crate::constraints::{Tag, arrived, insert_list, list, phone};
use crate::support::story;
use crate::versions::{Phone, columns, effect};

const LIST: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'name', 'p')";
const ITEM: &str = "INSERT INTO items (id, list_id, audience_key) VALUES ('i', 'l', 'p')";

fn inserted_list() -> Patch {
    effect("lists", "l", Effect::Insert(list("name")))
}

fn inserted_item() -> Patch {
    effect("items", "i", Effect::Insert(columns([("list_id", "l".into()), ("stars", None::<i64>.into())])))
}

fn operations(phone: &mut Phone) -> Vec<String> {
    let rows = phone.unsent().into_iter().flat_map(|record| record.rows).collect::<Vec<_>>();
    story(&rows).into_iter().map(|told| told.split(" {").next().expect("something").to_owned()).collect()
}

fn phone_with(records: Vec<LogRecord>) -> Phone {
    let mut phone = phone();
    phone.take(records).expect("takes what is on time");
    phone
}

/// `items` sorts before `lists`.
#[test]
fn cor_an_added_parent_comes_before_its_child() {
    let other = "INSERT INTO lists (id, name, audience_key) VALUES ('other', 'other', 'p')";
    let rows = vec![effect("lists", "other", Effect::Insert(list("other")))];
    let mut phone = phone_with(vec![arrived(Tag::Known, 1, 1_000, &[other, LIST, ITEM], rows)]);
    assert_eq!(operations(&mut phone), ["0 INSERT lists.l", "1 INSERT items.i"]);
}

#[test]
fn cor_a_child_that_is_taken_back_goes_before_its_parent() {
    let rows = vec![inserted_list(), inserted_item()];
    let mut phone = phone_with(vec![arrived(Tag::Known, 1, 1_000, &[LIST, ITEM], rows)]);
    phone.take(vec![insert_list(Tag::Known, 2, 500, "first", "name")]).expect("takes what is late");
    assert_eq!(operations(&mut phone), ["0 NOTHING items.i", "1 NOTHING lists.l"]);
}

/// The rule that the late arrival breaks is the last statement's.
#[test]
fn cor_a_deleted_parent_comes_back_before_its_child() {
    let made = arrived(Tag::Known, 1, 1_000, &[LIST, ITEM], vec![inserted_list(), inserted_item()]);
    let item = "DELETE FROM items WHERE id = 'i'";
    let list_gone = "DELETE FROM lists WHERE id = 'l'";
    let other = "INSERT INTO lists (id, name, audience_key) VALUES ('other', 'other', 'p')";
    let rows = vec![
        effect("items", "i", Effect::Delete),
        effect("lists", "l", Effect::Delete),
        effect("lists", "other", Effect::Insert(list("other"))),
    ];
    let removed = arrived(Tag::Known, 2, 2_000, &[item, list_gone, other], rows);
    let mut phone = phone_with(vec![made, removed]);
    phone.take(vec![insert_list(Tag::Known, 3, 500, "first", "other")]).expect("takes what is late");
    assert_eq!(operations(&mut phone), ["0 NOTHING lists.other", "1 NOTHING lists.l", "2 NOTHING items.i"]);
}
