//! U15: whatever a database sorts texts by, the server goes by bytes.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use synchrotron_core::model::{ActionId, ClientId, Hlc, Patch, ReplayKey};
use synchrotron_core::wire::UploadRecord;
use uuid::Uuid;

use crate::fixture::{Device, Theatre, columns, patch};

/// Projects that people sort otherwise than bytes do.
const PROJECTS: [&str; 9] = ["B", "b", "-", "_", "ä", "É", "z10", "Z9", " x"];
const DEVICES: u128 = 5;
const ACTIONS: u128 = 200;
const BATCH: usize = 20;

fn row_ids() -> impl Iterator<Item = (String, String)> {
    PROJECTS.into_iter().flat_map(|project| {
        ["Row", "row", "-row", "röw"].map(|row| (format!("project:{project}"), format!("{row} of {project}")))
    })
}

fn insert(key: &str, row: &str) -> Patch {
    let values = columns([("label", row.into()), ("holder", None::<&str>.into())]);
    patch("seats", row, key, synchrotron_core::model::Effect::Insert(values))
}

fn hold(key: &str, row: &str, holder: ActionId) -> Patch {
    let values = columns([("holder", holder.to_string().into())]);
    patch("seats", row, key, synchrotron_core::model::Effect::Update(values))
}

/// Many actions of one millisecond, each on three rows: by device, in the order of its batches.
fn actions(devices: &[Device], rng: &mut StdRng) -> Vec<(usize, Vec<UploadRecord>)> {
    let rows: Vec<(String, String)> = row_ids().collect();
    let mut batches = Vec::new();
    for (number, device) in devices.iter().enumerate() {
        let mut records: Vec<UploadRecord> = (0..ACTIONS / DEVICES)
            .map(|_| {
                let id = ActionId::from_uuid(Uuid::from_u128(rng.random()));
                let rows = rows.choose_multiple(rng, 3).map(|(key, row)| hold(key, row, id)).collect();
                UploadRecord { id, clock: Hlc::at_millis(1_000), ..device.action(0, rows) }
            })
            .collect();
        records.sort_by_key(|record| record.id);
        batches.extend(records.chunks(BATCH).map(|batch| (number, batch.to_vec())));
    }
    batches.shuffle(rng);
    batches
}

/// Who is the last to hold each row, by the one order.
fn last_holders(devices: &[Device], batches: &[(usize, Vec<UploadRecord>)]) -> BTreeMap<String, String> {
    let mut last: BTreeMap<String, ReplayKey> = BTreeMap::new();
    for (number, records) in batches {
        for record in records {
            let position = devices[*number].position(record);
            for row in &record.rows {
                let newest = last.entry(row.row_id.to_string()).or_insert(position);
                *newest = position.max(*newest);
            }
        }
    }
    last.into_iter().map(|(row, position)| (row, position.action_id.to_string())).collect()
}

/// Everything that the server says in an order of its own, while it takes the same uploads.
async fn transcript(theatre: &Theatre, seed: u64) -> Vec<String> {
    let values = PROJECTS.map(|project| format!("('{project}', 'alice')")).join(", ");
    theatre.execute(&format!("INSERT INTO project_members VALUES {values}")).await;
    let mut rng = StdRng::seed_from_u64(seed);
    let mut devices: Vec<Device> = (0..DEVICES).map(|_| theatre.device("alice")).collect();
    for device in &mut devices {
        device.client_id = ClientId::from_uuid(Uuid::from_u128(rng.random()));
    }
    let seats = row_ids().map(|(key, row)| insert(&key, &row)).collect();
    let first = UploadRecord { id: ActionId::from_uuid(Uuid::from_u128(1)), ..devices[0].action(1, seats) };
    let mut told = vec![format!("{:?}", devices[0].sync(vec![first]).await)];
    let batches = actions(&devices, &mut rng);
    for (number, batch) in &batches {
        told.push(format!("{:?}", devices[*number].sync(batch.clone()).await));
    }
    let expected = last_holders(&devices, &batches);
    let reader = &mut devices[0];
    let keys = PROJECTS.map(|project| format!("project:{project}"));
    let (header, rows) = reader.take(&keys.each_ref().map(String::as_str)).await;
    for row in rows.iter().filter(|row| expected.contains_key(row.row_id.as_str())) {
        assert_eq!(row.columns["holder"], expected[row.row_id.as_str()].as_str().into(), "SEED={seed}: {}", row.row_id);
    }
    told.push(format!("{:?}", header.audiences));
    told.push(format!("{:?}", reader.session().await.audiences));
    reader.cursors.clear();
    let fetched = reader.catch_up().await;
    told.extend(fetched.iter().map(|record| format!("{:?} {:?} {:?}", record.record.id, record.slices, record.rows)));
    let slices = theatre.service.unpublished_slices(10_000).await.expect("slices");
    told.extend(slices.iter().map(|(_, slice)| format!("{} {} {}", slice.audience_key, slice.prev, slice.through)));
    told
}

#[tokio::test]
async fn u15_a_database_that_sorts_as_people_do_behaves_as_one_that_sorts_bytes() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(15);
    let (bytes, people) = (Theatre::open().await, Theatre::open_icu("", &[], |_| {}).await);
    for (theatre, sorts_as_people) in [(&bytes, "false"), (&people, "true")] {
        assert_eq!(theatre.scalar("SELECT ('a' < 'B')::text").await.as_deref(), Some(sorts_as_people));
    }
    let (bytes, people) = tokio::join!(transcript(&bytes, seed), transcript(&people, seed));
    let differ = bytes.iter().zip(&people).position(|(one, other)| one != other);
    assert_eq!(differ, None, "again: SEED={seed} cargo test -p synchrotron-server --test service u15");
    assert_eq!(bytes.len(), people.len());
}
