//! U18: unknown and retired tags. Records outlive the versions of the app that made them.

use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context, Registry, Table};
use synchrotron_core::model::{Effect, Patch, RecordBody, Value};
use synchrotron_core::params;
use synchrotron_core::wire::{LogRecord, UploadRecord};

use crate::support::NOW;
use crate::versions::{Phone, Version, columns, effect, remote};

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS cards (
    id TEXT PRIMARY KEY, title TEXT, mood TEXT, stars INTEGER, audience_key TEXT NOT NULL)";

#[derive(Clone, Serialize, Deserialize)]
struct AddCardV1 {
    title: String,
}

#[derive(Serialize, Deserialize)]
struct AddCardV2 {
    title: String,
    mood: String,
}

#[derive(Serialize, Deserialize)]
struct AddCardV3 {
    title: String,
    mood: String,
    stars: i64,
}

fn add(ctx: &mut Context<'_>, title: &str, mood: Option<&str>, stars: Option<i64>) -> Result<String, ActionError> {
    let row = [("title", title.into()), ("mood", mood.into()), ("stars", stars.into()), ("audience_key", "p".into())];
    ctx.insert("cards", &row).map(|id| id.to_string())
}

impl Action for AddCardV1 {
    const TAG: &'static str = "add_card_v1";
    type Output = String;
    fn run(&self, ctx: &mut Context<'_>) -> Result<String, ActionError> {
        add(ctx, &self.title, None, None)
    }
}

impl Action for AddCardV3 {
    const TAG: &'static str = "add_card_v3";
    type Output = String;
    fn run(&self, ctx: &mut Context<'_>) -> Result<String, ActionError> {
        add(ctx, &self.title, Some(&self.mood), Some(self.stars))
    }
}

/// Sets a title; every version knows it.
#[derive(Clone, Serialize, Deserialize)]
struct Retitle {
    card: String,
    title: String,
}

impl Action for Retitle {
    const TAG: &'static str = "retitle_v1";
    type Output = ();
    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        ctx.execute("UPDATE cards SET title = ? WHERE id = ?", params![&self.title, &self.card]).map(drop)
    }
}

fn version(actions: impl FnOnce(&mut Registry)) -> Version {
    let mut registry = Registry::default();
    registry.register::<Retitle>().expect("new");
    actions(&mut registry);
    registry.check().expect("whole");
    Version { schema: SCHEMA.to_owned(), tables: vec![Table::new("cards").identity(["title"])], registry }
}

fn first_version() -> Version {
    version(|registry| registry.register::<AddCardV1>().expect("new"))
}

fn third_version() -> Version {
    version(|registry| {
        registry
            .upcast("add_card_v1", "add_card_v2", |old: AddCardV1| AddCardV2 { title: old.title, mood: "calm".into() })
            .expect("new");
        registry
            .upcast("add_card_v2", "add_card_v3", |old: AddCardV2| AddCardV3 {
                title: old.title,
                mood: old.mood,
                stars: 3,
            })
            .expect("new");
        registry.register::<AddCardV3>().expect("new");
    })
}

fn tag(record: &UploadRecord) -> (&str, &[u8]) {
    match &record.body {
        RecordBody::Action { tag, args } => (tag.as_str(), args.as_bytes()),
        RecordBody::Correction { .. } => ("a correction", &[]),
    }
}

fn card(row: &str, title: &str) -> Patch {
    let all = columns([("title", title.into()), ("mood", Value::Null), ("stars", Value::Null)]);
    effect("cards", row, Effect::Insert(all))
}

fn retitled(row: &str, title: &str) -> Patch {
    effect("cards", row, Effect::Update(columns([("title", title.into())])))
}

/// A card of another device, whose tag `insert_v1` nobody here knows.
fn base(number: i64, at_ms: i64, row: &str) -> LogRecord {
    remote(number, at_ms, "insert_v1", &serde_json::json!({}), vec![card(row, "base")])
}

fn retitle(number: i64, at_ms: i64, card: &str, title: &str) -> LogRecord {
    let action = Retitle { card: card.to_owned(), title: title.to_owned() };
    remote(number, at_ms, Retitle::TAG, &action, vec![retitled(card, title)])
}

#[test]
fn u18_a_pending_action_of_an_old_version_runs_in_the_new_one_under_the_same_row_id() {
    let mut phone = Phone::new(&first_version());
    phone.execute(&AddCardV1 { title: "mine".into() }).expect("runs");
    let before = phone.unsent();
    let mut phone = phone.upgrade(&third_version());
    phone.take(vec![base(1, NOW - 5, "x")]).expect("integrates, and replays what is pending");
    let after = phone.unsent();
    assert_eq!(after.len(), 1);
    assert_eq!(tag(&after[0]), tag(&before[0]), "the record keeps its tag and its arguments");
    assert_eq!(after[0].rows[0].row_id, before[0].rows[0].row_id, "row ids derive from the action's id");
    let set = columns([("title", "mine".into()), ("mood", "calm".into()), ("stars", 3.into())]);
    assert_eq!(after[0].rows[0].effect, Effect::Insert(set), "what ran is the third version, by two steps");
}

#[test]
fn u18_an_old_remote_action_is_run_by_the_new_version() {
    let mut author = Phone::new(&third_version());
    author.execute(&AddCardV3 { title: "theirs".into(), mood: "calm".into(), stars: 3 }).expect("runs");
    let rows = author.unsent().remove(0).rows;
    let mut phone = Phone::new(&third_version());
    let mut old = remote(1, NOW, "add_card_v1", &AddCardV1 { title: "theirs".into() }, rows.clone());
    // The ids of rows derive from that of the action.
    old.record.id = synchrotron_core::model::ActionId::from_uuid(uuid::Uuid::from_u128(1));
    phone.take(vec![old]).expect("integrates");
    assert_eq!(phone.column("SELECT stars AS c FROM cards"), [Value::Integer(3)]);
    assert_eq!(phone.unsent(), [], "and it does exactly what its patch says");
}

#[test]
fn u18_where_a_new_version_does_otherwise_its_author_is_believed() {
    let mut author = Phone::new(&first_version());
    author.execute(&AddCardV1 { title: "theirs".into() }).expect("runs");
    let rows = author.unsent().remove(0).rows;
    let mut phone = Phone::new(&third_version());
    let mut old = remote(1, NOW, "add_card_v1", &AddCardV1 { title: "theirs".into() }, rows);
    old.record.id = synchrotron_core::model::ActionId::from_uuid(uuid::Uuid::from_u128(1));
    phone.take(vec![old]).expect("integrates");
    assert_eq!(phone.column("SELECT mood AS c FROM cards"), [Value::Null], "the author's patch wins");
    assert_eq!(phone.unsent(), []);
}

#[test]
fn u18_an_unknown_tag_blocks_nothing_and_an_upgrade_that_knows_it_corrects_nothing() {
    let mut author = Phone::new(&third_version());
    let ids: Vec<_> = (0..10)
        .map(|n| {
            author.execute(&AddCardV3 { title: format!("card {n}"), mood: "calm".into(), stars: n }).expect("runs")
        })
        .collect();
    let records: Vec<LogRecord> = (1..)
        .zip(author.unsent())
        .map(|(number, sent)| {
            let RecordBody::Action { tag, args } = &sent.body else { unreachable!("only actions") };
            let mut arrived = remote(number, NOW, tag.as_str(), &serde_json::json!({}), sent.rows);
            arrived.record.body = RecordBody::Action { tag: tag.clone(), args: args.clone() };
            arrived.record.clock = sent.clock;
            arrived.record.id = sent.id;
            arrived
        })
        .collect();
    let fifth = records[4].rows[0].row_id.to_string();
    assert_eq!(ids.len(), 10);

    let mut phone = Phone::new(&first_version());
    phone.take(records).expect("integrates ten actions of a tag that this version does not know");
    let stars = "SELECT sum(stars) AS c FROM cards";
    assert_eq!(phone.column(stars), [Value::Integer(45)]);
    phone.execute(&Retitle { card: fifth.clone(), title: "mine".into() }).expect("runs on top of them");
    phone.take(vec![base(11, NOW - 5, "late")]).expect("rewinds past them");
    assert_eq!(phone.column(stars), [Value::Integer(45)], "and their patches are applied again");
    assert_eq!(phone.unsent().len(), 1, "the pending one");

    let mut phone = phone.upgrade(&third_version());
    phone.take(vec![base(12, NOW - 4, "later")]).expect("rewinds past them again, and runs them");
    phone.take(vec![retitle(13, NOW - 3, "late", "retitled")]).expect("and again");
    assert_eq!(phone.column(stars), [Value::Integer(45)]);
    assert_eq!(phone.column(&format!("SELECT title AS c FROM cards WHERE id = '{fifth}'")), ["mine".into()]);
    assert_eq!(phone.unsent().len(), 1, "no correction, only the pending one");
}

#[test]
fn u18_an_own_pending_action_of_an_unknown_tag_keeps_its_patch() {
    let mut phone = Phone::new(&third_version());
    phone.execute(&AddCardV3 { title: "mine".into(), mood: "wild".into(), stars: 5 }).expect("runs");
    let before = phone.unsent();
    let mut phone = phone.upgrade(&first_version());
    phone.take(vec![base(1, NOW - 5, "x")]).expect("integrates");
    assert_eq!(phone.unsent(), before);
    assert_eq!(phone.column("SELECT stars AS c FROM cards WHERE title = 'mine'"), [Value::Integer(5)]);
    assert_eq!(phone.engine.quarantined().expect("reads"), []);
}

#[test]
fn u18_arguments_that_do_not_read_as_those_of_their_tag_are_like_an_unknown_tag() {
    let mut phone = Phone::new(&first_version());
    phone.take(vec![base(1, NOW, "x")]).expect("integrates");
    let odd = remote(2, NOW + 5, Retitle::TAG, &serde_json::json!({"card": 7}), vec![retitled("x", "odd")]);
    phone.take(vec![odd]).expect("integrates");
    phone.take(vec![retitle(3, NOW + 2, "x", "late beneath")]).expect("integrates");
    assert_eq!(phone.column("SELECT title AS c FROM cards"), ["odd".into()]);
    assert_eq!(phone.unsent(), [], "it is no failure that would remove its effect");
}
