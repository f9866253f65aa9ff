//! Promise 4: booking rules end as if all actions had run in the one order.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use synchrotron_core::action::{Action, ActionError, Context};
use synchrotron_core::model::{ActionId, Epoch, RecordBody, Value};
use synchrotron_core::network::memory::MemoryServer;
use synchrotron_core::params;
use uuid::Uuid;

use crate::device::{Device, SERVER_NOW, check_promises, settle};
use crate::for_each_seed;

const SEATS: [&str; 3] = ["seat0", "seat1", "seat2"];

#[derive(Debug, Serialize, Deserialize)]
enum Change {
    Open,
    Book { seat: String, holder: String },
    Cancel { seat: String, holder: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Seat {
    change: Change,
}

impl Action for Seat {
    const TAG: &'static str = "seat_v1";
    type Output = ();

    fn run(&self, ctx: &mut Context<'_>) -> Result<(), ActionError> {
        let (sql, values) = match &self.change {
            Change::Open => {
                for seat in SEATS {
                    ctx.insert("cells", &[("id", seat.into()), ("audience_key", "P".into())])?;
                }
                return Ok(());
            }
            Change::Book { seat, holder } => {
                ("UPDATE cells SET holder = ?1 WHERE id = ?2 AND holder IS NULL", (holder, seat))
            }
            Change::Cancel { seat, holder } => {
                ("UPDATE cells SET holder = NULL WHERE id = ?2 AND holder = ?1", (holder, seat))
            }
        };
        match ctx.execute(sql, params![values.0, values.1])? {
            0 => Err(ActionError::reject("the rule says no")),
            _ => Ok(()),
        }
    }
}

/// The rules once more, on a map: what running everything in the one order comes to.
fn oracle(server: &MemoryServer) -> BTreeMap<String, Option<String>> {
    let mut actions: Vec<_> = server.log().into_iter().map(|entry| entry.record).collect();
    actions.sort_by_key(synchrotron_core::model::ActionRecord::position);
    let mut seats = BTreeMap::new();
    for record in actions {
        let RecordBody::Action { args, .. } = record.body else { continue };
        let seat: Seat = rmp_serde::from_slice(args.as_bytes()).expect("its own arguments");
        match seat.change {
            Change::Open => seats.extend(SEATS.map(|seat| (seat.to_owned(), None))),
            Change::Book { seat, holder } => {
                if let Some(free @ None) = seats.get_mut(&seat) {
                    *free = Some(holder);
                }
            }
            Change::Cancel { seat, holder } => {
                if let Some(held) = seats.get_mut(&seat).filter(|held| held.as_deref() == Some(&holder)) {
                    *held = None;
                }
            }
        }
    }
    seats
}

fn holders(device: &Device) -> BTreeMap<String, Option<String>> {
    let holder = |value: &Value| match value {
        Value::Text(holder) => Some(holder.clone()),
        _ => None,
    };
    device.rows().into_iter().map(|(id, columns)| (id.to_string(), holder(&columns["holder"]))).collect()
}

fn arbitrary(random: &mut StdRng, device: &Device, count: usize) -> Option<Change> {
    let seat = SEATS[random.random_range(0..SEATS.len())].to_owned();
    if random.random_bool(0.7) {
        return Some(Change::Book { seat, holder: format!("{}.{count}", device.number) });
    }
    let holder = holders(device).remove(&seat).flatten()?;
    Some(Change::Cancel { seat, holder })
}

fn run(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    let fleet = random.random_range(2..=5);
    let mut devices: Vec<Device> = (0..fleet)
        .map(|number| {
            let skew_ms = [0, -900, 400][random.random_range(0..3)];
            Device::new::<Seat>(&server, number, &["P"], skew_ms)
        })
        .collect();
    assert!(devices[0].execute(-50, &Seat { change: Change::Open }));
    devices.iter_mut().for_each(|device| {
        device.sync();
    });
    for time in 0..40 {
        let count = devices.len();
        let acting = random.random_range(0..count);
        if random.random_bool(0.5)
            && let Some(change) = arbitrary(&mut random, &devices[acting], usize::try_from(time).expect("small"))
        {
            devices[acting].execute(time, &Seat { change });
        }
        if random.random_bool(0.3) {
            devices[random.random_range(0..count)].sync();
        }
    }
    // A device that never comes back: what it uploaded stays, what it had pending is gone with it.
    if random.random_bool(0.5) && devices.len() > 1 {
        let lost = random.random_range(0..devices.len());
        devices.remove(lost);
    }
    settle(&mut devices, &server);
    check_promises(&mut devices, &server);
    for device in &devices {
        assert_eq!(holders(device), oracle(&server), "the rule does not hold on device {}", device.number);
    }
}

#[test]
fn booking_rules_end_as_if_all_had_run_in_order() {
    for_each_seed(0..60, "booking", run);
}

#[test]
fn rec_01_replay_keeps_ids_and_makes_no_new_records() {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    let mut devices: Vec<Device> = (0..2).map(|number| Device::new::<Seat>(&server, number, &["P"], 0)).collect();
    devices[0].execute(0, &Seat { change: Change::Open });
    devices[0].sync();
    devices[1].sync();
    let book = |seat: &str, holder: &str| Seat { change: Change::Book { seat: seat.into(), holder: holder.into() } };
    assert!(devices[1].execute(2, &book("seat1", "newer")), "pending, and the newer one");
    assert!(devices[0].execute(1, &book("seat0", "older")));
    devices[0].sync();
    settle(&mut devices, &server);
    check_promises(&mut devices, &server);
    let logged: Vec<ActionId> = server.log().into_iter().map(|entry| entry.record.id).collect();
    let executed: Vec<ActionId> = devices.iter().flat_map(|device| device.executed.clone()).collect();
    assert_eq!(logged.len(), executed.len(), "no record but the executed actions");
    assert!(executed.iter().all(|id| logged.contains(id)));
}

/// LATE-01, SRV-01 and the demo's second scene, without a network in between.
#[test]
fn a_late_booking_takes_the_seat_and_the_fixed_point_sends_nothing_more() {
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    let mut devices: Vec<Device> = (0..3).map(|number| Device::new::<Seat>(&server, number, &["P"], 0)).collect();
    devices[0].execute(0, &Seat { change: Change::Open });
    settle(&mut devices, &server);
    let book = |holder: &str| Seat { change: Change::Book { seat: "seat0".into(), holder: holder.into() } };
    assert!(devices[1].execute(1, &book("early")));
    assert!(devices[0].execute(2, &book("late")));
    devices[0].sync();
    settle(&mut devices, &server);
    for device in &devices {
        assert_eq!(holders(device)["seat0"].as_deref(), Some("early"));
    }
    let corrections: Vec<_> = server
        .log()
        .into_iter()
        .filter_map(|entry| match entry.record.body {
            RecordBody::Correction { reason, .. } => Some(reason),
            RecordBody::Action { .. } => None,
        })
        .collect();
    assert_eq!(corrections, [Some("the rule says no".to_owned())], "one correction, with the rule's own words");
    let before = server.log().len();
    settle(&mut devices, &server);
    assert_eq!(server.log().len(), before, "a fixed point");
}
