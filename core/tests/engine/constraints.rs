//! U19: accepted history that breaks a constraint of this database. Sync never fails on it, and ends as the server has it.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, Registry, Table};
use synchrotron_core::engine::{ExecuteError, Unsent};
use synchrotron_core::model::{AudienceKey, ClientId, Columns, Cursor, Effect, Patch, UserId, Value};
use synchrotron_core::store::{Fate, QuarantineKind};
use synchrotron_core::wire::{AudienceHead, LogRecord, Session};
use uuid::Uuid;

use crate::support::{NOW, RunSql, sql};
use crate::versions::{Phone, Version, columns, effect, epoch, remote};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS lists (id TEXT PRIMARY KEY, name TEXT UNIQUE, note TEXT, audience_key TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, list_id TEXT REFERENCES lists (id) ON DELETE CASCADE,
        stars INTEGER CHECK (stars < 6), audience_key TEXT NOT NULL);
    CREATE UNIQUE INDEX IF NOT EXISTS one_of_a_kind ON items (stars / 10) WHERE stars > 9;";

pub(crate) fn phone() -> Phone {
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new");
    let tables = vec![Table::new("lists").given_ids(), Table::new("items").given_ids()];
    Phone::new(&Version { schema: SCHEMA.to_owned(), tables, registry })
}

/// Whether the phones know the tag of what arrives, and so run it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Tag {
    Known,
    Unknown,
}

pub(crate) fn arrived(tag: Tag, number: i64, at_ms: i64, statements: &[&str], rows: Vec<Patch>) -> LogRecord {
    let tag = if tag == Tag::Known { RunSql::TAG } else { "of_a_newer_app_v1" };
    remote(number, at_ms, tag, &sql(statements), rows)
}

pub(crate) fn list(name: &str) -> Columns {
    columns([("name", name.into()), ("note", Value::Null)])
}

pub(crate) fn insert_list(tag: Tag, number: i64, at_ms: i64, row: &str, name: &str) -> LogRecord {
    let statement = format!("INSERT INTO lists (id, name, audience_key) VALUES ('{row}', '{name}', 'p')");
    arrived(tag, number, at_ms, &[&statement], vec![effect("lists", row, Effect::Insert(list(name)))])
}

fn set_list(tag: Tag, number: i64, at_ms: i64, row: &str, column: &str, to: &str) -> LogRecord {
    let statement = format!("UPDATE lists SET {column} = '{to}' WHERE id = '{row}'");
    let rows = vec![effect("lists", row, Effect::Update(columns([(column, to.into())])))];
    arrived(tag, number, at_ms, &[&statement], rows)
}

fn delete_list(tag: Tag, number: i64, at_ms: i64, row: &str) -> LogRecord {
    let statement = format!("DELETE FROM lists WHERE id = '{row}'");
    arrived(tag, number, at_ms, &[&statement], vec![effect("lists", row, Effect::Delete)])
}

fn lists(phone: &Phone) -> Vec<Value> {
    phone.column("SELECT id || '=' || name || coalesce('+' || note, '') AS c FROM lists ORDER BY id")
}

const MINE: &str = "INSERT INTO lists (id, name, audience_key) VALUES ('mine', 'groceries', 'p')";

#[test]
fn u19_a_pending_row_after_an_accepted_one_of_the_same_unique_value_is_quarantined() {
    for tag in [Tag::Known, Tag::Unknown] {
        let mut phone = phone();
        let mine = phone.execute(&sql(&[MINE])).expect("runs");
        phone.take(vec![insert_list(tag, 1, NOW - 5, "theirs", "groceries")]).expect("integrates");
        assert_eq!(lists(&phone), ["theirs=groceries".into()], "{tag:?}");
        let quarantined = phone.engine.quarantined().expect("reads");
        assert_eq!((quarantined[0].id, quarantined[0].kind), (mine, QuarantineKind::RejectedOnReplay));
        assert!(quarantined[0].reason.contains("lists.name"), "{}", quarantined[0].reason);
    }
}

#[test]
fn u19_a_pending_row_before_an_accepted_one_that_cannot_be_judged_gives_way() {
    let mut phone = phone();
    let mine = phone.execute(&sql(&[MINE])).expect("runs");
    let other =
        phone.execute(&sql(&["INSERT INTO items (id, stars, audience_key) VALUES ('i', 1, 'p')"])).expect("runs");
    phone.take(vec![insert_list(Tag::Unknown, 1, NOW + 5, "theirs", "groceries")]).expect("integrates");
    assert_eq!(lists(&phone), ["theirs=groceries".into()]);
    assert!(
        matches!(phone.engine.fate(mine).expect("reads"), Some(Fate::Rejected { reason }) if reason.contains("lists.name"))
    );
    let ids: Vec<_> = phone.unsent().into_iter().map(|record| record.id).collect();
    assert_eq!(ids, [other], "other pending work stays");
}

#[test]
fn u19_a_pending_row_before_an_accepted_one_that_can_be_judged_stays_and_the_server_decides() {
    let mut phone = phone();
    phone.execute(&sql(&[MINE])).expect("runs");
    phone.take(vec![insert_list(Tag::Known, 1, NOW + 5, "theirs", "groceries")]).expect("integrates");
    assert_eq!(lists(&phone), ["mine=groceries".into()], "the rule, run in order, lets the first one have it");
    assert_eq!(phone.unsent().len(), 2, "the action, and the correction that removes the other's effect");
}

#[test]
fn u19_a_pending_change_of_another_column_is_kept_when_its_row_is_displaced() {
    let mut phone = phone();
    phone.take(vec![insert_list(Tag::Unknown, 1, NOW - 9, "a", "x")]).expect("integrates");
    let noted = phone.execute(&sql(&["UPDATE lists SET note = 'mine' WHERE id = 'a'"])).expect("runs");
    // `a` gives its name up later than `b` takes it, in the one order; the server got it the other way round.
    phone.take(vec![set_list(Tag::Unknown, 2, NOW + 9, "a", "name", "y")]).expect("integrates");
    phone.take(vec![insert_list(Tag::Unknown, 3, NOW + 5, "b", "x")]).expect("integrates");
    assert_eq!(lists(&phone), ["a=y+mine".into(), "b=x".into()]);
    assert_eq!(phone.unsent().into_iter().map(|record| record.id).collect::<Vec<_>>(), [noted]);
    assert_eq!(phone.engine.quarantined().expect("reads"), []);
}

/// Every order of these, as far as `allowed` says that a server can have taken them so.
fn orders(count: usize, allowed: impl Fn(&[usize]) -> bool) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..count {
        let next = |order: &Vec<usize>| -> Vec<Vec<usize>> {
            let rest = (0..count).filter(|item| !order.contains(item));
            rest.map(|item| [&order[..], &[item]].concat()).collect()
        };
        orders = orders.iter().flat_map(next).collect();
    }
    orders.retain(|order| allowed(order));
    orders
}

/// What each of five actions does, in the one order: a name goes from one list to the next, and to the next.
fn hand_over(tag: Tag, which: usize, number: i64) -> LogRecord {
    match which {
        0 => insert_list(tag, number, NOW, "a", "x"),
        1 => set_list(tag, number, NOW + 5, "a", "note", "seen"),
        2 => insert_list(tag, number, NOW + 2, "b", "x"),
        3 => set_list(tag, number, NOW + 7, "a", "name", "y"),
        _ => delete_list(tag, number, NOW + 9, "a"),
    }
}

#[test]
fn u19_a_unique_value_that_is_handed_over_ends_as_the_server_has_it_in_every_order_of_arrival() {
    for tag in [Tag::Known, Tag::Unknown] {
        for last in [3, 4] {
            let place = |order: &[usize], item| order.iter().position(|other| *other == item);
            // 0 first; the name is free again, by 3 or by 4, before 2 takes it.
            let possible = |order: &[usize]| place(order, 0) == Some(0) && place(order, 2) > place(order, last);
            for order in orders(last + 1, possible) {
                let mut phone = phone();
                for (number, which) in (1..).zip(&order) {
                    phone.take(vec![hand_over(tag, *which, number)]).expect("integrates");
                }
                let expected: Vec<Value> =
                    if last == 3 { vec!["a=y+seen".into(), "b=x".into()] } else { vec!["b=x".into()] };
                assert_eq!(lists(&phone), expected, "{tag:?} {order:?}");
                assert_eq!(phone.unsent(), [], "{tag:?} {order:?}: nothing to correct");
                assert!(phone.engine.check().expect("checks").is_sound(), "{tag:?} {order:?}");
                assert_eq!(phone.rows("SELECT * FROM local_displaced_rows"), [], "{tag:?} {order:?}");
            }
        }
    }
}

#[test]
fn u19_a_displaced_row_waits_through_a_restart_and_for_its_value() {
    let mut phone = phone();
    phone.take(vec![insert_list(Tag::Unknown, 1, NOW, "a", "x")]).expect("integrates");
    // Stricter here than on the server: both have the name for now.
    phone.take(vec![insert_list(Tag::Unknown, 2, NOW + 1, "b", "x")]).expect("integrates");
    phone.take(vec![set_list(Tag::Unknown, 3, NOW + 2, "a", "note", "aside")]).expect("integrates");
    assert_eq!(lists(&phone), ["b=x".into()]);
    phone.take(vec![insert_list(Tag::Unknown, 4, NOW - 5, "c", "z")]).expect("rewinds and replays it all");
    assert_eq!(lists(&phone), ["b=x".into(), "c=z".into()]);
    let mut registry = Registry::default();
    registry.register::<RunSql>().expect("new");
    let tables = vec![Table::new("lists").given_ids(), Table::new("items").given_ids()];
    let mut phone = phone.upgrade(&Version { schema: SCHEMA.to_owned(), tables, registry });
    phone.take(vec![set_list(Tag::Unknown, 5, NOW + 3, "b", "name", "free")]).expect("integrates");
    assert_eq!(lists(&phone), ["a=x+aside".into(), "b=free".into(), "c=z".into()]);
}

/// A phone with a row of audience `p` that is displaced by one of audience `user:alice`.
fn with_a_displaced_row() -> Phone {
    let mut phone = phone();
    phone.take(vec![insert_list(Tag::Unknown, 1, NOW, "a", "x")]).expect("integrates");
    let mut private = insert_list(Tag::Unknown, 2, NOW + 1, "b", "x");
    private.rows[0].audience_key = AudienceKey::new("user:alice").expect("ok");
    phone.take(vec![private]).expect("integrates");
    assert_eq!(lists(&phone), ["b=x".into()]);
    phone
}

#[test]
fn u13_a_displaced_row_does_not_outlive_its_user() {
    let mut phone = with_a_displaced_row();
    let next = ClientId::from_uuid(Uuid::from_u128(0xb0b));
    phone.engine.sign_out(next, Unsent::Discard).expect("signs out");
    let file = rusqlite::Connection::open(phone.path()).expect("opens");
    for table in ["local_displaced_rows", "local_unfit"] {
        let kept: i64 = file.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).expect("reads");
        assert_eq!(kept, 0, "{table}");
    }
}

#[test]
fn u19_a_displaced_row_returns_when_the_audience_in_its_way_is_left() {
    let mut phone = with_a_displaced_row();
    let cursor = phone.engine.cursors().expect("reads")[&AudienceKey::new("p").expect("ok")];
    let session = Session {
        user_id: UserId::new("alice").expect("ok"),
        epoch: epoch(),
        server_time_ms: NOW,
        audiences: vec![AudienceHead {
            audience_key: AudienceKey::new("p").expect("ok"),
            head: cursor,
            retained: Cursor::START,
        }],
    };
    phone.engine.begin_session(&session, NOW).expect("begins");
    assert_eq!(lists(&phone), ["a=x".into()]);
}

#[test]
fn u19_an_index_on_an_expression_displaces_too() {
    let item = |stars: i64| Effect::Insert(columns([("list_id", Value::Null), ("stars", stars.into())]));
    let insert = |number, row: &str, stars| {
        arrived(Tag::Unknown, number, NOW + number, &[], vec![effect("items", row, item(stars))])
    };
    let mut phone = phone();
    phone.take(vec![insert(1, "a", 11), insert(2, "b", 12)]).expect("integrates");
    assert_eq!(phone.column("SELECT id AS c FROM items"), ["b".into()]);
    let gone = arrived(Tag::Unknown, 3, NOW + 3, &[], vec![effect("items", "b", Effect::Delete)]);
    phone.take(vec![gone]).expect("integrates");
    assert_eq!(phone.column("SELECT id AS c FROM items"), ["a".into()]);
}

fn item(tag: Tag, number: i64, at_ms: i64, row: &str, list: &str, stars: i64) -> LogRecord {
    let statement =
        format!("INSERT INTO items (id, list_id, stars, audience_key) VALUES ('{row}', '{list}', {stars}, 'p')");
    let all = columns([("list_id", list.into()), ("stars", stars.into())]);
    arrived(tag, number, at_ms, &[&statement], vec![effect("items", row, Effect::Insert(all))])
}

#[test]
fn u19_a_child_of_an_invisible_parent_is_kept_and_actions_still_obey_foreign_keys() {
    for tag in [Tag::Known, Tag::Unknown] {
        let mut phone = phone();
        phone.take(vec![item(tag, 1, NOW, "i", "in another audience", 1)]).expect("integrates");
        phone.take(vec![item(tag, 2, NOW - 5, "j", "elsewhere", 2)]).expect("rewinds, and integrates");
        assert_eq!(phone.column("SELECT id AS c FROM items ORDER BY id"), ["i".into(), "j".into()]);
        let orphan = "INSERT INTO items (id, list_id, audience_key) VALUES ('k', 'nowhere', 'p')";
        let refused = phone.execute(&sql(&[orphan])).expect_err("an action may not");
        assert!(
            matches!(&refused, ExecuteError::Action(error) if error.to_string().contains("FOREIGN KEY")),
            "{refused}"
        );
        phone.execute(&sql(&["UPDATE items SET stars = 3 WHERE id = 'i'"])).expect("its other columns are free");
        assert_eq!(phone.unsent().len(), 1);
    }
}

#[test]
fn u19_an_action_cascades_and_a_patch_does_what_it_says() {
    let mut phone = phone();
    let both = vec![insert_list(Tag::Known, 1, NOW - 9, "l", "x"), item(Tag::Known, 2, NOW - 8, "i", "l", 1)];
    phone.take(both).expect("integrates");
    phone.execute(&sql(&["DELETE FROM lists WHERE id = 'l'"])).expect("runs");
    assert_eq!(phone.unsent()[0].rows.len(), 2, "the cascade is an effect like any other");
    assert_eq!(phone.rows("SELECT * FROM items"), []);
    phone.take(vec![insert_list(Tag::Known, 3, NOW - 7, "m", "y")]).expect("rewinds and replays the cascade");
    assert_eq!(phone.rows("SELECT * FROM items"), []);

    let mut phone = self::phone();
    let both = vec![insert_list(Tag::Known, 1, NOW - 9, "l", "x"), item(Tag::Known, 2, NOW - 8, "i", "l", 1)];
    phone.take(both).expect("integrates");
    phone.take(vec![delete_list(Tag::Unknown, 3, NOW, "l")]).expect("integrates");
    assert_eq!(phone.column("SELECT id AS c FROM items"), ["i".into()], "what it did to other rows is in its patch");
    phone.take(vec![insert_list(Tag::Known, 4, NOW - 5, "m", "y")]).expect("rewinds over the missing parent");
    assert_eq!(phone.column("SELECT id AS c FROM items"), ["i".into()]);
    assert!(phone.engine.check().expect("checks").is_sound());
}

#[test]
fn u19_a_check_is_the_servers_to_make_for_what_it_has_accepted() {
    for tag in [Tag::Known, Tag::Unknown] {
        let mut phone = phone();
        phone.take(vec![item(tag, 1, NOW, "i", "l", 9)]).expect("integrates");
        phone.take(vec![item(tag, 2, NOW - 5, "j", "l", 8)]).expect("rewinds, and integrates");
        assert_eq!(phone.column("SELECT stars AS c FROM items ORDER BY id"), [9.into(), 8.into()], "{tag:?}");
        assert_eq!(phone.unsent(), [], "{tag:?}");
        let wrong = "INSERT INTO items (id, stars, audience_key) VALUES ('k', 7, 'p')";
        let refused = phone.execute(&sql(&[wrong])).expect_err("an action may not");
        assert!(refused.to_string().contains("CHECK constraint failed"), "{refused}");
    }
}

#[test]
fn u19_a_business_rule_that_says_no_here_lets_the_patch_stand() {
    let mut phone = phone();
    phone.take(vec![insert_list(Tag::Known, 1, NOW - 9, "a", "x")]).expect("integrates");
    // Its author had no list `x` yet; here its insert fails.
    let fails = ["INSERT INTO lists (id, name, audience_key) VALUES ('z', 'x', 'p')"];
    let rows = vec![effect("lists", "z", Effect::Insert(list("renamed")))];
    phone.take(vec![arrived(Tag::Known, 2, NOW, &fails, rows)]).expect("integrates");
    assert_eq!(lists(&phone), ["a=x".into(), "z=renamed".into()]);
    assert_eq!(phone.unsent(), []);
}

#[test]
fn u19_an_own_pending_patch_of_an_unknown_tag_displaces_nothing() {
    let mut phone = phone();
    let mine = phone.execute(&sql(&[MINE])).expect("runs");
    let tables = vec![Table::new("lists").given_ids(), Table::new("items").given_ids()];
    let version = Version { schema: SCHEMA.to_owned(), tables, registry: Registry::default() };
    let mut phone = phone.upgrade(&version);
    phone.take(vec![insert_list(Tag::Unknown, 1, NOW - 5, "theirs", "groceries")]).expect("integrates");
    assert_eq!(lists(&phone), ["theirs=groceries".into()]);
    assert!(matches!(phone.engine.fate(mine).expect("reads"), Some(Fate::Rejected { .. })));
}
