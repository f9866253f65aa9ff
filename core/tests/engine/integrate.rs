//! ING, FF, COR-20: what arrives is integrated once, in the one order, and only what can be judged is judged.

use synchrotron_core::engine::{EngineError, Received};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Cursor, Cursors, Effect, Epoch, Hlc,
    Patch, RecordBody, RowId, ServerIngestId, SliceTag, TableName, UserId, Value,
};
use synchrotron_core::wire::{FetchPage, LogRecord, Slice};
use uuid::Uuid;

use crate::support::{Device, NOW, RunSql, sql};

pub(crate) fn audience(key: &str) -> AudienceKey {
    AudienceKey::new(key).expect("ok")
}

fn epoch() -> Epoch {
    Epoch::from_uuid(Uuid::from_u128(0xe))
}

/// What an action of another device did to one row of `lists`.
pub(crate) fn set_name(sequence: u32, row: &str, name: &str, insert: bool) -> Patch {
    let columns = Columns::from([("name".to_owned(), Value::from(name))]);
    Patch {
        sequence,
        table: TableName::new("lists").expect("ok"),
        row_id: RowId::new(row).expect("ok"),
        audience_key: audience("p"),
        effect: if insert { Effect::Insert(columns) } else { Effect::Update(columns) },
    }
}

/// A record of another device: `number` is its arrival, `at_ms` its clock.
pub(crate) fn remote(number: i64, at_ms: i64, action: &RunSql, rows: Vec<Patch>) -> LogRecord {
    let id = ActionId::from_uuid(Uuid::from_u128(0xf000 + u128::from(number.cast_unsigned())));
    let args = ActionArgs::from_encoded(rmp_serde::to_vec_named(action).expect("encodes")).expect("a map");
    LogRecord {
        record: ActionRecord {
            id,
            clock: Hlc::at_millis(at_ms),
            client_id: ClientId::from_uuid(Uuid::from_u128(0xc2)),
            user_id: UserId::new("bob").expect("ok"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body: RecordBody::Action { tag: ActionTag::new("run_sql_v1").expect("ok"), args },
        },
        row_count: u32::try_from(rows.len()).expect("few"),
        slices: vec![SliceTag::of(id, &audience("p"))],
        rows,
    }
}

pub(crate) fn insert(number: i64, at_ms: i64, row: &str, name: &str) -> LogRecord {
    let statement = format!("INSERT INTO lists (id, name, audience_key) VALUES ('{row}', '{name}', 'p')");
    remote(number, at_ms, &sql(&[&statement]), vec![set_name(0, row, name, true)])
}

pub(crate) fn update(number: i64, at_ms: i64, row: &str, name: &str) -> LogRecord {
    let statement = format!("UPDATE lists SET name = '{name}' WHERE id = '{row}'");
    remote(number, at_ms, &sql(&[&statement]), vec![set_name(0, row, name, false)])
}

pub(crate) fn page(through: i64, records: Vec<LogRecord>) -> FetchPage {
    let cursors = Cursors::from([(audience("p"), Cursor::new(through))]);
    FetchPage { epoch: epoch(), records, cursors, more: false }
}

fn slice(key: &str, prev: i64, through: i64, records: Vec<LogRecord>) -> Slice {
    let (prev, through) = (Cursor::new(prev), Cursor::new(through));
    Slice { epoch: epoch(), audience_key: audience(key), prev, through, records }
}

/// A device with a session, in the audiences `p` and `user:alice`.
pub(crate) fn device() -> Device {
    let mut device = Device::new();
    device.begin_session();
    device
}

pub(crate) fn cursor(device: &mut Device, key: &str) -> i64 {
    device.engine.cursors().expect("reads")[&audience(key)].get()
}

pub(crate) fn name_of(device: &Device, row: &str) -> Option<Value> {
    let rows = device.rows(&format!("SELECT name FROM lists WHERE id = '{row}'"));
    rows.first().map(|row| row["name"].clone())
}

#[test]
fn ff_02_a_remote_action_is_applied_and_leaves_nothing_to_send() {
    let mut device = device();
    let committed = device.engine.integrate_page(page(1, vec![insert(1, NOW, "l", "one")])).expect("integrates");
    assert_eq!(committed.rows.len(), 1, "the change feed names the row");
    assert_eq!(name_of(&device, "l"), Some("one".into()));
    assert_eq!(cursor(&mut device, "p"), 1);
    assert_eq!(device.pending(), []);
}

#[test]
fn ff_04_nothing_new_changes_nothing() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert(1, NOW, "l", "one")])).expect("integrates");
    let committed = device.engine.integrate_page(page(1, vec![])).expect("integrates");
    assert_eq!(committed, synchrotron_core::engine::Committed::default());
}

#[test]
fn ff_05_an_unknown_tag_is_applied_by_its_patch_and_blocks_nothing() {
    let mut device = device();
    let mut newer_version = update(2, NOW + 1, "l", "from the future");
    if let RecordBody::Action { tag, .. } = &mut newer_version.record.body {
        *tag = ActionTag::new("run_sql_v2").expect("ok");
    }
    let records = vec![insert(1, NOW, "l", "one"), newer_version, insert(3, NOW + 2, "m", "two")];
    device.engine.integrate_page(page(3, records)).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("from the future".into()));
    assert_eq!(name_of(&device, "m"), Some("two".into()));
}

#[test]
fn ff_06_app_13_the_order_is_the_clocks_not_the_arrivals() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert(1, NOW, "l", "one")])).expect("integrates");
    device.engine.integrate_page(page(2, vec![update(2, NOW + 9, "l", "newer")])).expect("integrates");
    device.engine.integrate_page(page(3, vec![update(3, NOW + 5, "l", "older, and late")])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("newer".into()));
    assert_eq!(device.pending(), [], "an overwrite that stays the same needs no correction");
}

#[test]
fn ff_03_rec_pending_work_keeps_its_place_among_what_arrives() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert(1, NOW - 10, "l", "one")])).expect("integrates");
    let pending = device.run(&["UPDATE lists SET name = 'mine' WHERE id = 'l'"]).expect("runs");
    device.engine.integrate_page(page(2, vec![update(2, NOW - 5, "l", "older")])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("mine".into()), "the later write keeps its say");
    device.engine.integrate_page(page(3, vec![update(3, NOW + 5, "l", "newest")])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("newest".into()));
    let ids: Vec<ActionId> = device.pending().into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [pending], "the same id, and no other record");
}

#[test]
fn ing_04_05_what_comes_twice_is_applied_once() {
    let mut device = device();
    let record = insert(1, NOW, "l", "one");
    let live = slice("p", 0, 1, vec![record.clone()]);
    assert!(matches!(device.engine.receive(live.clone()).expect("receives"), Received::Integrated(_)));
    device.run(&["UPDATE lists SET name = 'mine'"]).expect("runs");
    assert_eq!(device.engine.receive(live).expect("receives"), Received::Known);
    device.engine.integrate_page(page(1, vec![record])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("mine".into()));
    assert_eq!(device.count("action_records"), 2);
    assert_eq!(cursor(&mut device, "p"), 1);
}

#[test]
fn a_slice_after_a_gap_asks_for_a_fetch_and_changes_nothing() {
    let mut device = device();
    let ahead = slice("p", 4, 5, vec![insert(5, NOW, "l", "one")]);
    assert_eq!(device.engine.receive(ahead).expect("receives"), Received::Gap);
    let too_large_to_publish = slice("p", 0, 5, vec![]);
    assert_eq!(device.engine.receive(too_large_to_publish).expect("receives"), Received::Gap);
    let not_mine = slice("q", 0, 5, vec![insert(5, NOW, "l", "one")]);
    assert_eq!(device.engine.receive(not_mine).expect("receives"), Received::Known);
    assert_eq!((device.count("lists"), cursor(&mut device, "p")), (0, 0));
}

#[test]
fn ing_07_an_action_waits_for_all_its_slices_and_only_for_those() {
    let mut device = device();
    let whole = |rows: Vec<Patch>| {
        let both = [
            "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')",
            "INSERT INTO notes (id, owner, title) VALUES ('n', 'alice', 'T')",
        ];
        let mut record = remote(1, NOW, &sql(&both), rows);
        let id = record.record.id;
        record.row_count = 2;
        // One of an audience that Alice is not in: nothing to wait for.
        record.slices = ["p", "user:alice", "elsewhere"].map(|key| SliceTag::of(id, &audience(key))).into();
        record
    };
    let note = Patch {
        sequence: 1,
        table: TableName::new("notes").expect("ok"),
        row_id: RowId::new("n").expect("ok"),
        audience_key: audience("user:alice"),
        effect: Effect::Insert(Columns::from([("owner".into(), "alice".into()), ("title".into(), "T".into())])),
    };
    let first = slice("p", 0, 1, vec![whole(vec![set_name(0, "l", "one", true)])]);
    assert_eq!(device.engine.receive(first).expect("receives"), Received::Waiting);
    assert_eq!((device.count("lists"), cursor(&mut device, "p")), (0, 0), "neither rows nor cursor move");
    let second = slice("user:alice", 0, 1, vec![whole(vec![note])]);
    assert!(matches!(device.engine.receive(second).expect("receives"), Received::Integrated(_)));
    assert_eq!((device.count("lists"), device.count("notes")), (1, 1));
    assert_eq!((cursor(&mut device, "p"), cursor(&mut device, "user:alice")), (1, 1));
}

#[test]
fn ing_10_an_own_action_that_comes_back_is_accepted_as_the_server_has_it() {
    let mut device = device();
    let id = device.run(&["INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')"]).expect("runs");
    let sent = device.batch().expect("pending").batch.records.remove(0);
    let own = LogRecord {
        record: ActionRecord {
            id,
            clock: sent.clock,
            client_id: device.engine.client_id().expect("reads"),
            user_id: UserId::new("alice").expect("ok"),
            server_ingest_id: Some(ServerIngestId::new(1)),
            trace_parent: None,
            body: sent.body,
        },
        row_count: 1,
        slices: vec![SliceTag::of(id, &audience("p"))],
        rows: sent.rows,
    };
    let committed = device.engine.integrate_page(page(1, vec![own])).expect("integrates");
    assert_eq!(committed.fates.get(&id), Some(&synchrotron_core::store::Fate::Confirmed));
    assert_eq!(device.pending(), []);
    assert_eq!(device.count("lists"), 1);
}

#[test]
fn another_history_is_never_mixed_in() {
    let mut device = device();
    let other = Epoch::from_uuid(Uuid::from_u128(0xbad));
    let foreign = Slice { epoch: other, ..slice("p", 0, 1, vec![insert(1, NOW, "l", "one")]) };
    let expected = EngineError::EpochChanged { expected: epoch(), actual: other };
    assert_eq!(device.engine.receive(foreign), Err(expected.clone()));
    let foreign = FetchPage { epoch: other, ..page(1, vec![insert(1, NOW, "l", "one")]) };
    assert_eq!(device.engine.integrate_page(foreign), Err(expected));
    assert_eq!(device.count("lists"), 0);
}

#[test]
fn cor_20_a_partly_visible_action_is_applied_from_its_patch_and_never_run() {
    let mut device = device();
    let both = [
        "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')",
        "INSERT INTO lists (id, name, audience_key) VALUES ('secret', 'two', 'p')",
    ];
    let mut partly = remote(1, NOW, &sql(&both), vec![set_name(0, "l", "one", true)]);
    partly.row_count = 2;
    device.engine.integrate_page(page(1, vec![partly])).expect("integrates");
    assert_eq!((name_of(&device, "l"), name_of(&device, "secret")), (Some("one".into()), None));
    assert_eq!(device.pending(), [], "and nothing is sent about it");
}

#[test]
fn sfo_a_replica_that_knows_less_never_overrules_the_author() {
    let mut device = device();
    device.engine.integrate_page(page(1, vec![insert(1, NOW, "l", "one")])).expect("integrates");
    // Its author's device did something else than this one does: the code here cannot judge it.
    let unlike = remote(
        2,
        NOW + 9,
        &sql(&["UPDATE lists SET name = 'as run here' WHERE id = 'l'"]),
        vec![set_name(0, "l", "as its author did", false)],
    );
    device.engine.integrate_page(page(2, vec![unlike])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("as its author did".into()), "the patch wins at once");
    device.engine.integrate_page(page(3, vec![update(3, NOW + 5, "l", "late beneath")])).expect("integrates");
    assert_eq!(name_of(&device, "l"), Some("as its author did".into()), "and stays when something comes late beneath");
    assert_eq!(device.pending(), [], "no correction");
}

#[test]
fn cor_08_an_effect_that_only_replay_has_is_added_as_a_correction() {
    let mut device = device();
    let both = [
        "INSERT INTO lists (id, name, audience_key) VALUES ('l', 'one', 'p')",
        "INSERT INTO lists (id, name, audience_key) VALUES ('extra', 'two', 'p')",
    ];
    let record = remote(1, NOW, &sql(&both), vec![set_name(0, "l", "one", true)]);
    device.engine.integrate_page(page(1, vec![record])).expect("integrates");
    assert_eq!(name_of(&device, "extra"), Some("two".into()));
    let rows: Vec<Patch> = device.pending().into_iter().flat_map(|(_, rows)| rows).collect();
    assert_eq!(rows, [set_name(0, "extra", "two", true)]);
}

#[test]
fn a_pending_action_whose_id_is_taken_is_quarantined_and_not_replaced_silently() {
    let mut device = device();
    let pending =
        device.run(&["INSERT INTO lists (id, name, audience_key) VALUES ('mine', 'one', 'p')"]).expect("runs");
    let mut taken = insert(1, NOW + 1, "theirs", "two");
    taken.record.id = pending;
    let committed = device.engine.integrate_page(page(1, vec![taken])).expect("integrates");
    assert!(matches!(committed.fates[&pending], synchrotron_core::store::Fate::Rejected { .. }));
    assert_eq!((name_of(&device, "mine"), name_of(&device, "theirs")), (None, Some("two".into())));
    assert!(device.engine.inspect(pending).expect("reads").is_some(), "and kept");
}

#[test]
fn ing_a_slice_that_says_it_reaches_further_than_its_records_hides_no_later_one() {
    let mut device = device();
    let overstated = slice("p", 0, 1000, vec![insert(1, NOW, "l", "one")]);
    assert_eq!(device.engine.receive(overstated).expect("looks"), Received::Gap);
    let next = device.engine.receive(slice("p", 0, 1, vec![insert(1, NOW, "l", "one")])).expect("takes");
    assert!(matches!(next, Received::Integrated(_)), "{next:?}");
    assert_eq!(cursor(&mut device, "p"), 1);
}
