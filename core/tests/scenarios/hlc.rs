//! HLC: one clock, one total order, the same in code and in SQLite.
//!
//! Not here, with the reason:
//! - HLC-07: there is no search for a common ancestor; the rewind point follows from replay keys (FF, LATE).
//! - HLC-08, HLC-09: clocks carry no vectors, so nothing compares them.
//! - HLC-14: client ids are UUIDs by type; no JSON path is made of one.
//! - HLC-17: two processes on one file are the two-process tests' matter.

use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, ClientId, Columns, Cursor, Cursors, Effect, Hlc, Patch, RecordBody,
    ReplayKey, RowId, ServerIngestId, SliceTag, TableName, Value,
};
use synchrotron_core::wire::{FetchPage, LogRecord, Outcome};
use uuid::Uuid;

use crate::actions::{content, create, title};
use crate::device::Device;
use crate::fleet::{BEGIN_MS, SHARED, World, audience_key, epoch, user_id};

fn clock_of(device: &Device) -> Hlc {
    match device.value("SELECT clock FROM client_sync_status") {
        Some(Value::Integer(packed)) => Hlc::from_packed(packed),
        other => unreachable!("a clock is an integer, not {other:?}"),
    }
}

fn key(ms: i64, counter: u16, client: u8, action: u8) -> ReplayKey {
    ReplayKey {
        clock: Hlc::from_packed(Hlc::at_millis(ms).packed() + i64::from(counter)),
        client_id: ClientId::from_uuid(Uuid::from_u128(u128::from(client) << 120)),
        action_id: ActionId::from_uuid(Uuid::from_u128(u128::from(action))),
    }
}

/// The clock begins at zero, ticks with the first action, and is kept.
#[test]
fn hlc_01_the_first_action_ticks_a_clock_that_was_never_touched() {
    let world = World::new();
    let mut a = world.device("A");
    assert_eq!(clock_of(&a), Hlc::ZERO);
    a.run(&create("n", "One"));
    assert_eq!(clock_of(&a), Hlc::at_millis(BEGIN_MS + 1));
    a.restart(&[]);
    assert_eq!(clock_of(&a), Hlc::at_millis(BEGIN_MS + 1));
}

/// What is merged never lowers a clock, and the next own action is after both.
#[test]
fn hlc_02_merging_never_lowers_and_the_next_tick_is_after_both() {
    let (small, large) = (key(1_000, 5, 0, 0).clock, key(1_200, 4, 0, 0).clock);
    assert_eq!((small.merge(large), large.merge(small)), (large, large));
    assert!(large.merge(small).tick(0) > large);
    assert_eq!(small.merge(large).tick(5_000), Hlc::at_millis(5_000));
}

/// Time first, then the counter; the same key is equal.
#[test]
fn hlc_03_hlc_10_time_decides_then_the_counter() {
    assert!(key(1_000, 9, 9, 9) < key(2_000, 0, 0, 0));
    assert!(key(1_000, 1, 9, 9) < key(1_000, 2, 0, 0));
    assert_eq!(key(1_000, 1, 1, 1), key(1_000, 1, 1, 1));
}

/// Equal clocks: the client id decides, whichever way they are compared.
#[test]
fn hlc_04_the_client_id_breaks_ties() {
    assert!(key(1_000, 1, 0xaa, 9) < key(1_000, 1, 0xbb, 0));
    assert!(key(1_000, 1, 0xbb, 0) > key(1_000, 1, 0xaa, 9));
}

/// Sorting is by clock, and the last tie-break makes two actions never equal.
#[test]
fn hlc_06_keys_sort_by_time_counter_client_and_action() {
    let sorted =
        [key(999, 2, 1, 1), key(1_000, 0, 1, 5), key(1_000, 5, 1, 3), key(1_000, 5, 1, 4), key(1_000, 5, 2, 2)];
    let mut keys = [sorted[3], sorted[4], sorted[0], sorted[2], sorted[1]];
    keys.sort_unstable();
    assert_eq!(keys, sorted);
}

/// Device ids as awkward as UUIDs get, all in one millisecond: code, SQLite and server agree on the order.
/// Collations are the Postgres server's matter; here ids are bytes.
#[test]
fn hlc_05_u15_a_thousand_ties_have_one_order_in_code_in_sqlite_and_on_the_server() {
    let world = World::new();
    let mut a = world.device("A");
    let clients = [0x00, 0x2d, 0x41, 0x61, 0xff];
    let mut keys: Vec<ReplayKey> = (0..1_000_u32)
        .map(|n| {
            // A fixed scramble, so that neither clients nor actions arrive in their order.
            let mixed = n.wrapping_mul(2_654_435_761).rotate_left(7);
            let client = clients[usize::try_from(mixed % 5).expect("small")];
            let action_id = ActionId::from_uuid(Uuid::from_u128(u128::from(mixed) << 64 | u128::from(n)));
            ReplayKey { action_id, ..key(BEGIN_MS, 0, client, 0) }
        })
        .collect();
    let arrivals = (1..).zip(&keys).map(|(number, key)| renames_one_note(number, *key)).collect();
    let cursors = Cursors::from([(audience_key(SHARED), Cursor::new(1_000))]);
    a.engine()
        .integrate_page(FetchPage { epoch: epoch(1), records: arrivals, cursors, more: false })
        .expect("takes all");
    keys.sort_unstable();
    let columns = "position_clock, position_client_id, position_action_id";
    let in_sqlite: Vec<Value> = a
        .rows(&format!("SELECT id FROM action_records ORDER BY {columns}"))
        .into_iter()
        .map(|mut row| row.remove("id").expect("an id"))
        .collect();
    let in_code: Vec<Value> =
        keys.iter().map(|key| Value::Bytes(key.action_id.as_uuid().as_bytes().to_vec())).collect();
    assert!(in_sqlite == in_code, "SQLite orders positions as replay keys are ordered");
    assert_eq!(a.title("n"), keys[999].action_id.to_string(), "the last in the one order has the last word");
}

/// An insert of the note `n`, or what a second insert of it comes to: its title names the action.
fn renames_one_note(number: i64, key: ReplayKey) -> LogRecord {
    let columns = Columns::from([
        ("title".to_owned(), key.action_id.to_string().into()),
        ("content".to_owned(), "".into()),
        ("tags".to_owned(), Value::Json("[]".into())),
        ("updated_at".to_owned(), Value::Null),
        ("user_id".to_owned(), "B".into()),
    ]);
    LogRecord {
        record: ActionRecord {
            id: key.action_id,
            clock: key.clock,
            client_id: key.client_id,
            user_id: user_id("B"),
            server_ingest_id: Some(ServerIngestId::new(number)),
            trace_parent: None,
            body: RecordBody::Action {
                tag: ActionTag::new("not_in_this_version_v1").expect("a tag"),
                args: ActionArgs::from_encoded(vec![0x80]).expect("a map"),
            },
        },
        row_count: 1,
        slices: vec![SliceTag::of(key.action_id, &audience_key(SHARED))],
        rows: vec![Patch {
            sequence: 0,
            table: TableName::new("notes").expect("a name"),
            row_id: RowId::new("n").expect("an id"),
            audience_key: audience_key(SHARED),
            effect: Effect::Insert(columns),
        }],
    }
}

/// What was executed after something had been seen sorts after it, also where the other clock is ahead. A clock beyond
/// the server's bound never gets in: the design refuses what the system before this one accepted.
#[test]
fn hlc_11_an_action_after_one_that_was_seen_sorts_after_it() {
    let world = World::new();
    let [mut a, mut b] = world.devices(["A", "B"]);
    b.skew_ms = 30_000;
    let seen = b.run(&create("n", "of B"));
    b.sync();
    a.sync();
    a.run(&title("n", "of A"));
    let own = a.pending().remove(0);
    let log = world.server.log();
    let seen = log.iter().find(|logged| logged.record.id == seen).expect("uploaded");
    assert!(own.clock > seen.record.clock);
    b.skew_ms = 24 * 3_600_000;
    b.run(&title("n", "from tomorrow"));
    let sent = b.batch().expect("pending");
    let outcome = b.send(&sent).expect("answers");
    assert!(matches!(outcome, Outcome::BehindHead { .. } | Outcome::ClockAhead { max_ahead_ms: 60_000, .. }));
    a.sync();
    assert_eq!(a.title("n"), "of A");
    assert!(clock_of(&a).millis() < world.now_ms() + 60_000, "nobody else is dragged into the future");
}

/// Actions of one device within one millisecond keep the order of their execution.
#[test]
fn hlc_12_actions_of_one_millisecond_stay_in_the_order_of_execution() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "0"));
    a.skew_ms = -100_000;
    let ids: Vec<ActionId> = (1..=20).map(|n| a.run(&title("n", &n.to_string()))).collect();
    let pending: Vec<ActionId> = a.pending().into_iter().map(|record| record.id).collect();
    assert_eq!(pending[1..], ids);
    a.sync();
    assert_eq!(world.server_value("notes", "n", "title"), Some("20".into()));
}

/// A clock is one integer everywhere; the table refuses anything else.
#[test]
fn hlc_13_clocks_are_stored_as_integers() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    a.sync();
    assert_eq!(
        a.value("SELECT DISTINCT typeof(clock) || typeof(position_clock) FROM action_records"),
        Some("integerinteger".into())
    );
    let strict = a.value("SELECT count(*) FROM pragma_table_list WHERE name = 'action_records' AND strict");
    assert_eq!(strict, Some(1.into()));
}

/// A sync with nothing to do leaves the clock where it is.
#[test]
fn hlc_15_the_clock_never_moves_back() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    a.run(&content("n", "two"));
    a.sync();
    let clock = clock_of(&a);
    assert!(clock >= world.server.log()[1].record.clock);
    a.sync();
    assert_eq!(clock_of(&a), clock);
    a.skew_ms = -1_000_000;
    a.run(&content("n", "three"));
    assert!(clock_of(&a) > clock);
}

/// A record is as large in a fleet of twelve as in a fleet of one.
#[test]
fn hlc_16_a_record_does_not_grow_with_the_number_of_devices() {
    let world = World::new();
    let mut a = world.device("A");
    a.run(&create("n", "One"));
    a.run(&title("n", "alone"));
    let alone = synchrotron_core::wire::encode(&a.pending()[1]).len();
    a.sync();
    for name in ["B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L"] {
        let mut other = world.device(name);
        other.sync();
        other.run(&title("n", name));
        other.sync();
    }
    a.sync();
    a.run(&title("n", "alone"));
    assert_eq!(synchrotron_core::wire::encode(&a.pending()[0]).len(), alone);
}
