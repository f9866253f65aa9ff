//! Rules of `subscribe`. A network without push passes them by saying so; one that only wakes must wake.

use futures::StreamExt;
use futures::stream::BoxStream;

use super::device::{Device, audience, ids, note, seat};
use super::{NetworkFixture, answered, within};
use crate::model::{AudienceKey, Cursor, SliceTag};
use crate::network::{Ingress, NetworkError};
use crate::wire::Slice;

type Events = BoxStream<'static, Ingress>;

async fn subscribe(device: &Device, keys: &[&str]) -> Result<Option<Events>, NetworkError> {
    let audiences: Vec<AudienceKey> = keys.iter().map(|key| audience(key)).collect();
    answered("subscribe", || device.network.subscribe(&audiences)).await
}

/// The next slice, whatever wakeups come before it.
async fn next_slice(events: &mut Events) -> Slice {
    within("a live slice", async {
        loop {
            match events.next().await {
                Some(Ingress::Slice(slice)) => return slice,
                Some(Ingress::Wakeup) => {}
                None => panic!("the stream of live events ended"),
            }
        }
    })
    .await
}

/// A subscriber gets each commit as a slice that continues the one before; or it is woken, and fetches.
pub async fn a_subscriber_hears_of_a_commit(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1", "user:alice"]).await;
    let mut bob = Device::join(fixture, "bob", &["project:1"]).await;
    let Some(mut events) = subscribe(&bob, &["project:1"]).await.expect("own audiences can be subscribed") else {
        return;
    };
    if !bob.network.carrier().is_live() {
        let record = alice.action(vec![seat("s1", "project:1")]);
        alice.accepted(vec![record.clone()]).await;
        within("a wakeup", events.next()).await.expect("the stream of live events goes on");
        assert_eq!(ids(&bob.catch_up().await), [record.id]);
        return;
    }
    let mut prev = Cursor::START;
    for id in ["s1", "s2", "s3"] {
        let seen = alice.action(vec![note(id, "alice", "x"), seat(id, "project:1")]);
        let unseen = alice.action(vec![note(&format!("{id}-more"), "alice", "x")]);
        let numbers = alice.accepted(vec![seen.clone(), unseen]).await;
        let slice = next_slice(&mut events).await;
        assert_eq!((slice.epoch, &slice.audience_key), (bob.session.epoch, &audience("project:1")));
        assert_eq!((slice.prev, slice.through), (prev, Cursor::through(numbers[&seen.id])));
        assert_eq!(ids(&slice.records), [seen.id]);

        let record = &slice.records[0];
        let mut slices = ["project:1", "user:alice"].map(|key| SliceTag::of(seen.id, &audience(key))).to_vec();
        slices.sort_unstable();
        assert_eq!((record.row_count, &record.slices), (2, &slices));
        assert_eq!(record.rows, seen.rows[1..]);
        assert_eq!(slice.records, bob.catch_up().await, "a slice says what a fetch says");
        prev = slice.through;
    }
}

/// Who asks for a foreign audience is refused, or hears nothing of it.
pub async fn live_events_keep_to_the_users_audiences(fixture: &impl NetworkFixture) {
    let mut alice = Device::join(fixture, "alice", &["project:1", "user:alice"]).await;
    let bob = Device::join(fixture, "bob", &["project:1"]).await;
    let events = match subscribe(&bob, &["user:alice", "project:1"]).await {
        Ok(events) => events,
        Err(_) => subscribe(&bob, &["project:1"]).await.expect("own audiences can be subscribed"),
    };
    let Some(mut events) = events.filter(|_| bob.network.carrier().is_live()) else { return };
    for id in ["1", "2", "3"] {
        let private = alice.action(vec![note(id, "alice", "x")]);
        alice.accepted(vec![private]).await;
        let shared = alice.action(vec![note(&format!("{id}-more"), "alice", "x"), seat(id, "project:1")]);
        alice.accepted(vec![shared.clone()]).await;
        let slice = next_slice(&mut events).await;
        assert_eq!((slice.audience_key, ids(&slice.records)), (audience("project:1"), vec![shared.id]));
        assert_eq!(slice.records[0].rows, shared.rows[1..]);
    }
}
