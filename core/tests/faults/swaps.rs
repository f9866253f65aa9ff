//! U05, U11: snapshots that swap in, and audiences that leave, while the store fails at every call.

use std::collections::BTreeMap;

use synchrotron_core::engine::Progress;
use synchrotron_core::model::{
    ActionId, AudienceKey, Columns, Cursor, RowId, ServerIngestId, SnapshotId, TableName, Value,
};
use synchrotron_core::store::Fate;
use synchrotron_core::wire::{SnapshotAudience, SnapshotChunk, SnapshotHeader, SnapshotPosition, SnapshotRow};

use crate::replays::{SEATS, Standoff, fail_at_every_call, standoff};
use crate::world::{ALICE, Device, assert_closed, dump};

fn hall() -> AudienceKey {
    AudienceKey::new("hall").expect("a good key")
}

/// A restored server's hall in two chunks: the even seats are Zoe's.
fn chunks() -> [SnapshotChunk; 2] {
    let snapshot_id = SnapshotId::from_uuid(uuid::Uuid::from_u128(5));
    let seat = |n: usize| SnapshotRow {
        table: TableName::new("seats").expect("a good name"),
        row_id: RowId::new(format!("s{n}")).expect("a good id"),
        audience_key: hall(),
        columns: Columns::from([("holder".to_owned(), if n.is_multiple_of(2) { "zoe".into() } else { Value::Null })]),
    };
    let audience = SnapshotAudience { audience_key: hall(), cursor: Cursor::new(3), floor: None, rows: SEATS as u64 };
    // The backup has Alice's opening of the hall.
    let opening = ActionId::from_uuid(uuid::Uuid::from_u128(ALICE << 32));
    let known = BTreeMap::from([(opening, ServerIngestId::new(1))]);
    let header = SnapshotHeader { audiences: vec![audience], known };
    [(0, 0..SEATS / 2), (1, SEATS / 2..SEATS)].map(|(chunk, seats)| SnapshotChunk {
        position: SnapshotPosition { snapshot_id, chunk },
        header: (chunk == 0).then(|| header.clone()),
        rows: seats.map(seat).collect(),
        last: chunk == 1,
    })
}

#[test]
fn u05_a_snapshot_that_fails_at_any_call_leaves_the_old_rows_and_resumes() {
    let Standoff { folder, .. } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    fail_at_every_call(folder.path(), &mut alice, |alice| alice.begin_session_of_restored_server());
    let asked = alice.engine.snapshot_request().expect("reads").expect("the hall is stale");
    assert_eq!((asked.audiences, asked.resume), (vec![hall()], None));
    let [first, last] = chunks();
    let (_, progress) = fail_at_every_call(folder.path(), &mut alice, |alice| alice.engine.take_chunk(&first));
    assert!(matches!(progress, Progress::Loading { rows_done: 10, rows_total: 20 }), "{progress:?}");
    drop(alice);

    let mut alice = Device::open(folder.path(), ALICE);
    let asked = alice.engine.snapshot_request().expect("reads").expect("half of it is missing");
    assert_eq!(asked.resume, Some(last.position), "a new process resumes where the old one was");
    let (calls, _) = fail_at_every_call(folder.path(), &mut alice, |alice| alice.engine.take_chunk(&last));
    assert!(calls > 100, "the swap and every pending action were met: {calls}");
    assert_eq!(alice.engine.snapshot_request().expect("reads"), None);
    let zoes = dump(folder.path()).into_iter().filter(|line| line.starts_with("seats") && line.contains("zoe")).count();
    assert_eq!(zoes, SEATS / 2);
    assert_eq!(alice.engine.quarantined().expect("reads").len(), 5, "what found its seat taken is kept for Alice");
    drop(alice);
    assert_closed(folder.path());
}

#[test]
fn u11_an_audience_that_leaves_while_the_store_fails_leaves_whole_or_not_at_all() {
    let Standoff { folder, .. } = standoff();
    let mut alice = Device::open(folder.path(), ALICE);
    let pending = alice.batch().expect("pending").batch.records;
    fail_at_every_call(folder.path(), &mut alice, |alice| alice.begin_session_outside_the_hall());
    let left = dump(folder.path());
    assert!(!left.iter().any(|line| line.starts_with("seats ") || line.starts_with("bookings ")), "{left:?}");
    for record in pending {
        let fate = alice.engine.fate(record.id).expect("reads");
        assert!(matches!(fate, None | Some(Fate::Rejected { .. })), "never silently gone: {fate:?}");
    }
    let kept = alice.engine.pending_count().expect("reads") + alice.engine.quarantined().expect("reads").len() as u64;
    assert_eq!(kept, 10, "every one is pending or in quarantine");
}
