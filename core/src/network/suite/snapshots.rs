//! Rules of `snapshot` and `digest`.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::NetworkFixture;
use super::device::{Device, audience, hold, ids, note, row, seat};
use super::replica::rows_of;
use super::taking::Taken;
use crate::model::{
    ActionId, AudienceKey, Cursor, Effect, Epoch, Hlc, Patch, ReplayKey, RowsDigest, ServerIngestId, SnapshotId, Value,
};
use crate::network::NetworkError;
use crate::wire::{FaultCode, SnapshotPosition};

const KEY: &str = "project:1";
/// Rows of this many bytes, and so many of them that no server puts them into one chunk.
const LABEL_BYTES: usize = 4_500;
const SEATS: usize = 300;
const SEATS_OF_A_BATCH: usize = 50;

/// A snapshot brings the rows that the log comes to, each once, in several chunks of which the first says what they are.
pub async fn a_snapshot_brings_the_rows_of_the_log(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let bob = Device::join(fixture, "bob", &["user:bob", KEY]).await;
    fill(&mut alice).await;
    let rows = vec![note("n1", "alice", "mine"), note("n2", "alice", "gone soon")];
    let made = alice.action(rows);
    let changed = alice.action(vec![hold("s7", KEY, "alice"), removal(note("n2", "alice", ""))]);
    alice.accepted(vec![made, changed]).await;

    for device in [&alice, &bob] {
        let audiences: Vec<AudienceKey> =
            device.session.audiences.iter().map(|audience| audience.audience_key.clone()).collect();
        let taken = Taken::whole(device, &audiences).await;
        let (records, cursors) = device.everything_after(&BTreeMap::new()).await;
        assert!(taken.rows() == rows_of(&records), "the rows of a snapshot are the fold of the log");
        assert!(taken.chunks > 1, "{SEATS} rows of {LABEL_BYTES} bytes came in one chunk");
        let told: BTreeMap<_, _> =
            taken.header.audiences.iter().map(|told| (told.audience_key.clone(), (told.cursor, told.rows))).collect();
        let count = |key: &AudienceKey| taken.rows.iter().filter(|row| row.audience_key == *key).count() as u64;
        let expected = cursors.iter().map(|(key, cursor)| (key.clone(), (*cursor, count(key)))).collect();
        assert_eq!(told, expected, "cursors and counts of {:?}", device.user);
        assert!(taken.header.audiences.is_sorted_by(|a, b| a.audience_key < b.audience_key));
    }
}

/// Whoever did not get a chunk asks again, and gets the same.
pub async fn a_chunk_again_is_the_same(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &[KEY]).await;
    fill(&mut alice).await;
    let mut chunk = alice.first_chunk(&[audience(KEY)], &[]).await.expect("a snapshot");
    loop {
        let again = alice.chunk_at(chunk.position).await.expect("the newest chunk is kept");
        assert!(again == chunk, "{:?} differs the second time", chunk.position);
        if chunk.last {
            return;
        }
        let next = SnapshotPosition { chunk: chunk.position.chunk + 1, ..chunk.position };
        chunk = alice.chunk_at(next).await.expect("the next chunk");
        assert_eq!((chunk.position, chunk.header.is_none()), (next, true));
    }
}

/// What is committed between two chunks is not in them, and is what a fetch from the header's cursors brings.
pub async fn a_snapshot_is_one_moment_and_fetch_goes_on_from_it(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY]).await;
    // Notes that fill chunks, so that a server that reads table by table has not come to the seats.
    fill_with(&mut alice, |id| note(id, "alice", &"x".repeat(LABEL_BYTES))).await;
    let seats = (0..SEATS_OF_A_BATCH).map(|number| seat(&name(number), KEY));
    let made = alice.action(seats.collect());
    alice.accepted(vec![made]).await;
    alice.catch_up().await;
    let before = rows_of(&alice.everything().await);
    bob.catch_up().await;
    let first = alice.first_chunk(&["user:alice", KEY].map(audience), &[]).await.expect("a snapshot");
    assert!(!first.last, "{SEATS} rows of {LABEL_BYTES} bytes came in one chunk");

    let everywhere = (0..SEATS_OF_A_BATCH).map(|number| hold(&name(number), KEY, "bob")).collect();
    let records = vec![bob.action(everywhere), bob.action(vec![seat("new", KEY), removal(seat("s0", KEY))])];
    let later: Vec<ActionId> = records.iter().map(|record| record.id).collect();
    bob.accepted(records).await;

    let taken = Taken::rest(&alice, first).await;
    assert!(taken.rows() == before, "the rows of before the commit");
    let cursors = taken.cursors();
    assert_eq!(cursors, alice.cursors, "the heads before the commit");
    let (fetched, reached) = alice.everything_after(&cursors).await;
    assert_eq!(ids(&fetched), later);
    let heads = alice.refresh().await.audiences.iter().map(|told| (told.audience_key.clone(), told.head));
    assert_eq!(reached, heads.collect());
}

/// Audiences that the user is not in are left out, whoever asks for them, and so are audiences that nobody asked for.
pub async fn a_foreign_audience_is_in_no_snapshot(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY, "project:2"]).await;
    let records = vec![alice.action(vec![seat("s1", KEY), note("n1", "alice", "mine")])];
    alice.accepted(records).await;
    bob.catch_up().await;
    let theirs = bob.action(vec![seat("s2", "project:2")]);
    bob.accepted(vec![theirs]).await;

    let asked = [KEY, "project:2", "project:of nobody"].map(audience);
    let taken = Taken::whole(&alice, &asked).await;
    assert_eq!(taken.header.audiences.iter().map(|told| &told.audience_key).collect::<Vec<_>>(), [&asked[0]]);
    assert_eq!(taken.rows().into_keys().collect::<Vec<_>>(), [row("seats", "s1")]);
    let digests = alice.digests(&asked).await.expect("digests");
    assert_eq!(digests.into_keys().collect::<Vec<_>>(), asked[..1]);
}

/// A device learns which of its user's records the snapshot holds, and nothing of others'.
pub async fn a_snapshot_tells_which_own_records_it_holds(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let mut bob = Device::join(fixture, "bob", &[KEY]).await;
    let (accepted, never) = (alice.action(vec![seat("s1", KEY)]), alice.action(vec![seat("s2", KEY)]));
    let numbers = alice.accepted(vec![accepted.clone()]).await;
    bob.catch_up().await;
    let theirs = bob.action(vec![seat("s3", KEY)]);
    bob.accepted(vec![theirs.clone()]).await;
    let asked = [accepted.id, never.id, theirs.id];
    let chunk = alice.first_chunk(&[audience("user:alice")], &asked).await.expect("a snapshot");
    let known: BTreeMap<ActionId, ServerIngestId> = chunk.header.expect("the first chunk has a header").known;
    assert_eq!(known, numbers);
}

/// The floor is the greatest position in an audience: neither a late arrival nor a correction of something earlier lifts it.
pub async fn a_snapshot_tells_the_floor(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let base = alice.session.server_time_ms - 10_000;
    assert_eq!(
        floors(&alice).await,
        [(KEY, None), ("user:alice", None)].map(|(key, floor)| (audience(key), floor)).into()
    );
    let newest = alice.action_at(Hlc::at_millis(base + 5_000), vec![seat("s1", KEY)]);
    let late = alice.action_at(Hlc::at_millis(base), vec![seat("s2", KEY), note("n1", "alice", "x")]);
    alice.accepted(vec![newest.clone()]).await;
    alice.accepted(vec![late.clone()]).await;
    let amendment = alice.correction(alice.position_of(&late), None, vec![hold("s2", KEY, "alice")]);
    alice.accepted(vec![amendment]).await;
    let expected = [(KEY, alice.position_of(&newest)), ("user:alice", alice.position_of(&late))];
    assert_eq!(floors(&alice).await, expected.map(|(key, floor)| (audience(key), Some(floor))).into());
}

/// A snapshot that is not held, or not for this device, is gone: the device begins another.
pub async fn an_unknown_snapshot_is_gone(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &[KEY]).await;
    let bob = Device::join(fixture, "bob", &[KEY]).await;
    fill(&mut alice).await;
    let taken = alice.first_chunk(&[audience(KEY)], &[]).await.expect("a snapshot").position;
    let beyond = SnapshotPosition { chunk: taken.chunk + 1_000, ..taken };
    let unknown = SnapshotPosition { snapshot_id: SnapshotId::from_uuid(Uuid::new_v4()), chunk: 0 };
    for (device, position) in [(&alice, unknown), (&alice, beyond), (&bob, taken)] {
        let answer = device.chunk_at(position).await;
        assert!(is_fault(&answer, FaultCode::SnapshotGone), "{position:?}: {:?}", answer.err());
    }
    assert_eq!(Taken::whole(&bob, &[audience(KEY)]).await.rows.len(), SEATS);
}

/// A digest is that of the rows which a snapshot brings, whatever their order; one changed row changes it.
pub async fn a_digest_is_that_of_the_rows(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["user:alice", KEY]).await;
    let asked = ["user:alice", KEY].map(audience);
    let empty = alice.digests(&asked).await.expect("digests");
    assert!(empty.values().all(|of| (of.rows, of.digest, of.head) == (0, RowsDigest::default(), Cursor::START)));
    let made = alice.action(vec![seat("s1", KEY), seat("s2", KEY), note("n1", "alice", "🎭 ' \" \\")]);
    let changes = [hold("s1", KEY, "alice"), hold("s1", KEY, "bob"), removal(seat("s2", KEY))];
    let records = [made].into_iter().chain(changes.map(|change| alice.action(vec![change])));
    let mut seen = Vec::new();
    for record in records.collect::<Vec<_>>() {
        alice.accepted(vec![record]).await;
        let taken = Taken::whole(&alice, &asked).await;
        let digests = alice.digests(&asked).await.expect("digests");
        for told in &taken.header.audiences {
            let of = &digests[&told.audience_key];
            assert_eq!((of.head, of.rows, of.digest), (told.cursor, told.rows, taken.digest(&told.audience_key)));
        }
        seen.push(digests[&asked[1]].digest);
    }
    let differ = (0..seen.len()).all(|index| !seen[..index].contains(&seen[index]));
    assert!(differ, "each change is seen: {seen:?}");
}

/// Rows are of one history: a device that is at another is told before it reads any.
pub async fn a_snapshot_of_another_epoch_is_refused(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &[KEY]).await;
    fill(&mut alice).await;
    let begun = alice.first_chunk(&[audience(KEY)], &[]).await.expect("a snapshot").position;
    alice.session.epoch = Epoch::from_uuid(Uuid::new_v4());
    let answers = [alice.first_chunk(&[audience(KEY)], &[]).await, alice.chunk_at(begun).await];
    for answer in answers {
        assert!(is_fault(&answer, FaultCode::EpochChanged), "{:?}", answer.err());
    }
    let answer = alice.digests(&[audience(KEY)]).await;
    assert!(is_fault(&answer, FaultCode::EpochChanged), "{answer:?}");
}

async fn fill(device: &mut Device) {
    fill_with(device, large_seat).await;
}

async fn fill_with(device: &mut Device, row: impl Fn(&str) -> Patch) {
    for first in (0..SEATS).step_by(SEATS_OF_A_BATCH) {
        let numbers = first..first + SEATS_OF_A_BATCH;
        let records = numbers.map(|number| device.action(vec![row(&name(number))])).collect();
        device.accepted(records).await;
    }
}

fn name(number: usize) -> String {
    format!("s{number}")
}

fn large_seat(id: &str) -> Patch {
    let mut patch = seat(id, KEY);
    if let Effect::Insert(columns) = &mut patch.effect {
        columns.insert("label".to_owned(), Value::Text("x".repeat(LABEL_BYTES)));
    }
    patch
}

/// The end of the row that a patch makes.
fn removal(patch: Patch) -> Patch {
    Patch { effect: Effect::Delete, ..patch }
}

async fn floors(device: &Device) -> BTreeMap<AudienceKey, Option<ReplayKey>> {
    let audiences: Vec<AudienceKey> =
        device.session.audiences.iter().map(|audience| audience.audience_key.clone()).collect();
    let header = Taken::whole(device, &audiences).await.header;
    header.audiences.into_iter().map(|told| (told.audience_key, told.floor)).collect()
}

fn is_fault<T>(answer: &Result<T, NetworkError>, code: FaultCode) -> bool {
    matches!(answer, Err(NetworkError::Fault(fault)) if fault.code == code)
}
