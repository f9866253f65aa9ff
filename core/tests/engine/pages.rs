//! Pages that are integrated in one step come to the same as one after the other.

use synchrotron_core::engine::EngineError;
use synchrotron_core::model::{ActionRecord, Columns, Cursor, Epoch, ServerIngestId, SliceTag, UserId};
use synchrotron_core::store::{Fate, Fated};
use synchrotron_core::wire::{FetchPage, LogRecord};
use uuid::Uuid;

use crate::integrate::{audience, cursor, device, insert, page, remote, set_name, update};
use crate::support::{Device, NOW, sql};

const LISTS: i64 = 5;

/// A device with lists, its own renames of them pending, and what the server sends then: others' renames, from before and
/// after, and in the middle this device's own first rename.
fn with_pending_and_pages(records_on_a_page: usize) -> (Device, Vec<FetchPage>) {
    let mut device = device();
    let lists = (1..=LISTS).map(|number| insert(number, NOW - 100, &format!("l{number}"), &format!("list {number}")));
    device.engine.integrate_page(page(LISTS, lists.collect())).expect("integrates");
    for number in 1..=LISTS {
        device.run(&[&format!("UPDATE lists SET name = 'own {number}' WHERE id = 'l{number}'")]).expect("runs");
    }
    let sent = device.batch().expect("pending").batch.records.remove(0);
    let body = sent.body;
    let mut records: Vec<LogRecord> = (LISTS + 1..40)
        .map(|number| {
            let at_ms = NOW - 20 + number * 7 % 31;
            update(number, at_ms, &format!("l{}", 1 + number * 3 % LISTS), &format!("theirs {number}"))
        })
        .collect();
    let own = LogRecord {
        record: ActionRecord {
            id: sent.id,
            clock: sent.clock,
            client_id: device.engine.client_id().expect("reads"),
            user_id: UserId::new("alice").expect("ok"),
            server_ingest_id: Some(ServerIngestId::new(40)),
            trace_parent: None,
            body,
        },
        row_count: 1,
        slices: vec![SliceTag::of(sent.id, &audience("p"))],
        rows: sent.rows,
    };
    records.push(own);
    let pages = records.chunks(records_on_a_page).map(|records| {
        let through = records.last().and_then(|logged| logged.record.server_ingest_id).expect("accepted");
        page(through.get(), records.to_vec())
    });
    (device, pages.collect())
}

type Standing = (Vec<Columns>, i64, Vec<Fated>, usize, bool);

fn standing(device: &mut Device) -> Standing {
    let rows = device.rows("SELECT * FROM lists ORDER BY id");
    let cursor = cursor(device, "p");
    let fates = device.engine.fates(None, 100).expect("reads");
    let pending = device.pending().len();
    (rows, cursor, fates, pending, device.engine.check().expect("checks").is_sound())
}

#[test]
fn many_pages_in_one_step_are_the_same_as_page_by_page() {
    for records_on_a_page in [1, 3, 7, 100] {
        let (mut singly, pages) = with_pending_and_pages(records_on_a_page);
        for page in pages {
            singly.engine.integrate_page(page).expect("integrates");
        }
        let (mut together, pages) = with_pending_and_pages(records_on_a_page);
        let committed = together.engine.integrate_pages(pages).expect("integrates");
        assert!(committed.fates.values().all(|fate| *fate == Fate::Confirmed), "one event for the whole step");
        let standing = (standing(&mut singly), standing(&mut together));
        assert_eq!(standing.0, standing.1, "{records_on_a_page} records on a page");
        let (_, cursor, fates, _, is_sound) = standing.1;
        assert_eq!((cursor, fates.len(), is_sound), (40, 1, true));
    }
}

#[test]
fn an_action_whose_rows_come_on_two_pages_is_one_action() {
    let both = [
        "INSERT INTO lists (id, name, audience_key) VALUES ('one', '1', 'p')",
        "INSERT INTO lists (id, name, audience_key) VALUES ('two', '2', 'p')",
    ];
    let rows = vec![set_name(0, "one", "1", true), set_name(1, "two", "2", true)];
    let whole = remote(1, NOW, &sql(&both), rows);
    let part =
        |rows: &[usize]| LogRecord { rows: rows.iter().map(|row| whole.rows[*row].clone()).collect(), ..whole.clone() };
    let mut device = device();
    let pages = vec![page(1, vec![part(&[1])]), page(2, vec![part(&[0, 1])])];
    device.engine.integrate_pages(pages).expect("integrates");
    assert_eq!((device.count("lists"), cursor(&mut device, "p")), (2, 2));
    assert!(device.engine.check().expect("checks").is_sound());
    assert_eq!(device.pending(), [], "it was whole, and did what its author said");
}

#[test]
fn cursors_come_to_the_furthest_of_all_pages() {
    let mut device = device();
    device.engine.integrate_pages(vec![page(7, Vec::new()), page(3, Vec::new())]).expect("integrates");
    assert_eq!(cursor(&mut device, "p"), Cursor::new(7).get());
}

#[test]
fn a_page_of_another_history_spoils_the_step() {
    let mut device = device();
    let good = page(1, vec![insert(1, NOW, "l", "one")]);
    let expected = good.epoch;
    let actual = Epoch::from_uuid(Uuid::from_u128(0xbad));
    let foreign = FetchPage { epoch: actual, ..page(2, vec![insert(2, NOW, "m", "two")]) };
    let refused = device.engine.integrate_pages(vec![good, foreign]);
    assert_eq!(refused, Err(EngineError::EpochChanged { expected, actual }));
    assert_eq!((device.count("lists"), cursor(&mut device, "p")), (0, 0));
}

#[test]
fn what_is_late_within_the_step_is_no_reason_to_overrule_its_author() {
    let mut device = device();
    let unlike = remote(
        2,
        NOW + 9,
        &sql(&["UPDATE lists SET name = 'as run here' WHERE id = 'l'"]),
        vec![set_name(0, "l", "as its author did", false)],
    );
    // The third is beneath the second: whether the code here does what its author saw is not known from this run.
    let records = vec![insert(1, NOW, "l", "one"), unlike, update(3, NOW + 5, "l", "late beneath")];
    device.engine.integrate_page(page(3, records)).expect("integrates");
    assert_eq!(device.rows("SELECT name FROM lists")[0]["name"], "as its author did".into());
    assert_eq!(device.pending(), [], "no correction");
}
