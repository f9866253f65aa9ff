//! Rules of whole audiences: state, rows that come and go without undo, digests, snapshots on their way.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::StoreFixture;
use super::subject::{accepted, act, action, audience, columns, patch, pending, put, row, rows, step, thing, walk};
use crate::model::{
    AudienceRow, ClientId, Columns, Cursor, Effect, Hlc, Patch, RowKey, RowsDigest, ServerIngestId, SnapshotId,
};
use crate::store::{AudienceState, Fate, QuarantineKind, Staged};
use crate::wire::{SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRow};

fn snapshot_row(table: &str, id: &str, key: &str, columns: Columns) -> SnapshotRow {
    let RowKey { table, row_id } = row(table, id);
    SnapshotRow { table, row_id, audience_key: audience(key), columns }
}

/// An audience's state is set as a whole, also backwards; its cursor may move alone.
pub fn an_audience_is_kept_with_its_state(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let floor = Some(pending(1, 10, vec![]).record.position());
    let (fresh, deep) = (AudienceState::default(), AudienceState { cursor: Cursor::new(9), floor, stale: true });
    step(&mut store, |txn| {
        txn.put_audience(&audience("q"), &deep).expect("is put");
        txn.put_audience(&audience("p"), &fresh).expect("is put");
    });
    step(&mut store, |txn| {
        assert_eq!(txn.audiences().expect("reads"), [(audience("p"), fresh), (audience("q"), deep)]);
        txn.put_cursor(&audience("q"), Cursor::new(12)).expect("moves");
        let moved = AudienceState { cursor: Cursor::new(12), ..deep };
        assert_eq!(txn.audiences().expect("reads")[1], (audience("q"), moved));
        txn.put_audience(&audience("q"), &fresh).expect("is put");
        assert_eq!(txn.audiences().expect("reads")[1], (audience("q"), fresh), "also backwards");
    });
}

/// Rows of a snapshot are set without an effect of any action, in any order, over what is there.
pub fn loaded_rows_leave_no_undo(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let part = columns([("name", "wheel".into()), ("thing", "t".into())]);
    step(&mut store, |txn| {
        act(txn, action(1), &["INSERT INTO notes (id, owner, body) VALUES ('n', 'bob', 'x')"]);
        let captured = txn.captured(action(1)).expect("reads");
        let note = columns([("body", "loaded".into()), ("owner", "bob".into())]);
        let loaded = [
            snapshot_row("parts", "a", "p", part.clone()), // before its parent
            snapshot_row("things", "t", "p", thing("one")),
            snapshot_row("notes", "n", "user:bob", note.clone()),
            snapshot_row("parts", "b", "p", columns([("name", "lost".into()), ("thing", "hidden".into())])),
        ];
        txn.load_rows(&loaded).expect("loads");
        let expected = [
            (row("parts", "a"), ("p", part)),
            (row("parts", "b"), ("p", loaded[3].columns.clone())),
            (row("things", "t"), ("p", thing("one"))),
            (row("notes", "n"), ("user:bob", note)),
        ];
        assert_eq!(rows(txn), expected.map(|(key, (of, columns))| (key, (audience(of), columns))).into());
        assert_eq!(txn.captured(action(1)).expect("reads"), captured);
        txn.as_sql().execute("DELETE FROM things", &[]).expect_err("rows are closed again");
    });
    step(&mut store, |txn| {
        // Foreign keys hold for actions again.
        super::subject::try_act(
            txn,
            action(2),
            &[("INSERT INTO parts (id, thing, audience_key) VALUES ('c', 'no', 'p')", &[])],
        )
        .expect_err("no such thing");
        act(txn, action(3), &["DELETE FROM things WHERE id = 't'"]);
        assert!(!rows(txn).contains_key(&row("parts", "a")), "and cascade");
    });
}

/// An audience that is forgotten takes its rows, its part of the log and its undo along, and nothing of others.
pub fn a_forgotten_audience_leaves_no_trace(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let of = |key: &str, sequence: u32, id: &str| Patch {
        audience_key: audience(key),
        ..patch(sequence, "things", id, Effect::Insert(thing(id)))
    };
    step(&mut store, |txn| {
        for key in ["p", "q"] {
            txn.put_audience(&audience(key), &AudienceState::default()).expect("is put");
        }
        let [only_q, both, only_p] =
            [(1, vec![of("q", 0, "q1")]), (2, vec![of("p", 0, "p1"), of("q", 1, "q2")]), (3, vec![of("p", 0, "p2")])]
                .map(|(n, rows)| accepted(pending(n, 10, rows), i64::try_from(n).expect("small")));
        let unsent = pending(4, 40, vec![of("q", 0, "q3")]);
        for stored in [&only_q, &both, &only_p] {
            txn.apply_patch(stored.record.id, &stored.rows).expect("applies");
        }
        put(txn, &[only_q, both, only_p, unsent.clone()]);
        let emptied = txn.forget_audience(&audience("q")).expect("forgets");
        assert_eq!(emptied, [row("things", "x").table]);
        assert_eq!(rows(txn).into_keys().collect::<Vec<_>>(), [row("things", "p1"), row("things", "p2")]);
        assert_eq!(walk(txn), [action(2), action(3), action(4)]);
        let left = txn.record(action(2)).expect("reads").expect("is there");
        assert_eq!((left.rows, left.row_count), (vec![of("p", 0, "p1")], 2), "one of two rows is visible here now");
        assert_eq!(txn.record(action(4)).expect("reads"), Some(unsent), "what is not accepted is kept whole");
        assert!(!txn.has_effects(action(1)).expect("reads"));
        assert_eq!(txn.audiences().expect("reads").len(), 1);
        assert_eq!(txn.forget_audience(&audience("q")).expect("again"), []);
        txn.rewind(action(2)).expect("undo of what stays still works");
        assert_eq!(rows(txn).len(), 0);
    });
}

/// A user who is erased leaves nothing behind: no row, no record, no undo, no fate, no name; the device is a new one.
pub fn an_erased_user_leaves_nothing(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let next = ClientId::from_uuid(Uuid::from_u128(0xfeed));
    step(&mut store, |txn| {
        txn.put_audience(&audience("p"), &AudienceState::default()).expect("is put");
        put(txn, &[pending(1, 10, vec![]), pending(2, 20, vec![])]);
        act(txn, action(1), &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'p')"]);
        act(txn, action(2), &["INSERT INTO parts (id, thing, audience_key) VALUES ('a', 't', 'p')"]);
        txn.quarantine(action(2), QuarantineKind::Dropped, "dropped").expect("is put");
        txn.put_fate(action(9), Hlc::at_millis(9), &Fate::Confirmed).expect("is put");
    });
    let mut emptied = step(&mut store, |txn| txn.erase_user(next).expect("erases"));
    emptied.sort();
    assert_eq!(emptied, [row("parts", "x").table, row("things", "x").table]);
    step(&mut store, |txn| {
        assert_eq!((txn.client_id().expect("reads"), txn.user_id().expect("reads")), (next, None));
        assert_eq!((rows(txn).len(), walk(txn), txn.audiences().expect("reads")), (0, vec![], vec![]));
        assert_eq!(txn.newest_undone().expect("reads"), None);
        assert_eq!((txn.fates(None, 9).expect("reads"), txn.quarantined_count().expect("reads")), (vec![], 0));
        txn.as_sql()
            .execute("INSERT INTO things (id, audience_key) VALUES ('t', 'p')", &[])
            .expect_err("rows are closed again");
    });
}

/// A digest is of an audience's rows alone: equal for equal rows, however they came to be, and different otherwise.
pub fn a_digest_is_of_the_rows_alone(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    step(&mut store, |txn| {
        let digest = |key: &str| txn.digest(&audience(key)).expect("reads");
        assert_eq!(digest("p"), (0, RowsDigest::default()));
        act(
            txn,
            action(1),
            &["INSERT INTO things (id, label, audience_key) VALUES ('t', 'one', 'p'), ('x', 'two', 'q')"],
        );
        let one = digest("p");
        assert_eq!(one.0, 1);
        act(txn, action(2), &["INSERT INTO parts (id, thing, audience_key) VALUES ('a', 't', 'p')"]);
        let two = digest("p");
        assert_eq!(two.0, 2);
        let mut each = Vec::new();
        txn.each_row(&mut |row, digest| each.push((row, digest))).expect("reads");
        each.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let of_p = AudienceRow { row: row("things", "t"), audience_key: audience("p") };
        assert_eq!(each[1], (of_p, one.1), "the digest of one row is that of an audience with one");
        act(txn, action(3), &["UPDATE things SET label = '' WHERE id = 't'"]);
        let empty = digest("p");
        act(txn, action(4), &["UPDATE things SET label = NULL WHERE id = 't'"]);
        assert!(empty != two && digest("p") != empty && digest("p") != two, "empty is not null");
        txn.rewind(action(3)).expect("rewinds");
        assert_eq!(digest("p"), two);
        txn.rewind(action(1)).expect("rewinds");
        txn.load_rows(&[snapshot_row("things", "t", "p", thing("one"))]).expect("loads");
        assert_eq!(digest("p"), one);
    });
}

/// A snapshot on its way is kept chunk by chunk across restarts; a new header begins anew.
pub fn a_snapshot_on_its_way_is_kept(fixture: &impl StoreFixture) {
    let mut store = fixture.open();
    let position = |snapshot: u128, chunk| SnapshotPosition {
        snapshot_id: SnapshotId::from_uuid(Uuid::from_u128(snapshot)),
        chunk,
    };
    let state = SnapshotAudience { audience_key: audience("p"), cursor: Cursor::new(9), floor: None, rows: 3 };
    let header =
        SnapshotHeader { audiences: vec![state], known: BTreeMap::from([(action(1), ServerIngestId::new(4))]) };
    let chunk = |snapshot, chunk: u32, ids: &[&str]| SnapshotChunk {
        position: position(snapshot, chunk),
        header: (chunk == 0).then(|| header.clone()),
        rows: ids.iter().map(|id| snapshot_row("things", id, "p", thing(id))).collect(),
        last: false,
    };
    assert_eq!(step(&mut store, |txn| txn.staged().expect("reads")), None);
    step(&mut store, |txn| txn.stage(&chunk(1, 0, &["a", "b"])).expect("is kept"));
    step(&mut store, |txn| txn.stage(&chunk(1, 1, &["c"])).expect("is kept"));
    drop(store);
    let mut store = fixture.open();
    step(&mut store, |txn| {
        let expected = Staged { next: position(1, 2), header: header.clone(), rows_done: 3 };
        assert_eq!(txn.staged().expect("reads"), Some(expected));
        assert_eq!(txn.staged_rows(0).expect("reads"), chunk(1, 0, &["a", "b"]).rows);
        assert_eq!(txn.staged_rows(1).expect("reads"), chunk(1, 1, &["c"]).rows);
        assert_eq!(rows(txn).len(), 0, "nothing of it is visible");
        txn.stage(&chunk(2, 0, &["z"])).expect("is kept");
        let anew = Staged { next: position(2, 1), header: header.clone(), rows_done: 1 };
        assert_eq!(txn.staged().expect("reads"), Some(anew));
        txn.staged_rows(1).expect_err("the old one's rows are gone");
        txn.drop_staged().expect("drops");
        assert_eq!(txn.staged().expect("reads"), None);
        txn.staged_rows(0).expect_err("its rows are gone");
    });
}
