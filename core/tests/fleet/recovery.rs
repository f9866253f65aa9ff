//! Memberships that come and go, compaction, restored servers, copied databases, clocks that are far off.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use synchrotron_core::model::{AudienceKey, ClientId, Cursor, Epoch};
use synchrotron_core::network::memory::{MemoryServer, PageBounds};
use uuid::Uuid;

use crate::chaos::{Chaos, VIEWS, arbitrary};
use crate::device::{Device, SERVER_NOW, check_converged, check_promises, settle};
use crate::for_each_seed;

const STEPS: i64 = 60;

/// What may happen besides actions and syncs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Memberships, compaction, snapshots that expire, rebases, copies: nothing is lost by them.
    Harmless,
    /// The server comes back from a backup: what no device remembers is lost with it.
    Restored,
}

fn disturb(trouble: Trouble, random: &mut StdRng, server: &MemoryServer, devices: &mut [Device]) {
    let index = random.random_range(0..devices.len());
    let log = i64::try_from(server.log().len()).expect("a short log");
    let device = &mut devices[index];
    match random.random_range(0..8) {
        0 | 1 => {
            let audience = AudienceKey::new(["P", "Q"][random.random_range(0..2)]).expect("ok");
            if random.random_bool(0.5) {
                server.revoke(device.user(), &audience);
            } else {
                server.allow(device.user(), &audience);
            }
        }
        2 => server.compact(Cursor::new(random.random_range(0..=log))),
        3 => server.expire_snapshots(),
        4 => device.engine().rebase().expect("marks"),
        5 => {
            let id = ClientId::from_uuid(Uuid::from_u128(random.random()));
            device.engine().become_device(id).expect("becomes another");
        }
        6 if trouble == Trouble::Restored => {
            let epoch = Epoch::from_uuid(Uuid::from_u128(random.random()));
            server.restore(epoch, Cursor::new(random.random_range(0..=log)));
        }
        _ => drop(device.engine().hard_resync().expect("drops")),
    }
}

fn run(seed: u64, trouble: Trouble) {
    let mut random = StdRng::seed_from_u64(seed);
    let server = MemoryServer::new(Epoch::from_uuid(Uuid::from_u128(1)), SERVER_NOW);
    server.set_snapshot_rows_max(2);
    server.set_page_bounds(PageBounds { records_max: 5, ..PageBounds::default() });
    let fleet = random.random_range(2..=VIEWS.len());
    let mut devices: Vec<Device> = (0..fleet)
        .map(|number| {
            // The last one is hours ahead: the server refuses its clocks until they are given anew.
            let skew_ms = [0, 0, -500, 300, 20_000_000][random.random_range(0..5)];
            let number_u32 = u32::try_from(number).expect("a small fleet");
            Device::new::<Chaos>(&server, number_u32, VIEWS[number], skew_ms)
        })
        .collect();
    for time in 0..STEPS {
        let acting = random.random_range(0..fleet);
        if random.random_bool(0.6) {
            let action = arbitrary(&mut random, &devices[acting].audiences);
            devices[acting].execute(time, &action);
        }
        if random.random_bool(0.35) {
            devices[random.random_range(0..fleet)].sync();
        }
        if random.random_bool(0.1) {
            disturb(trouble, &mut random, &server, &mut devices);
        }
    }
    settle(&mut devices, &server);
    match trouble {
        Trouble::Harmless => check_promises(&mut devices, &server),
        Trouble::Restored => check_converged(&mut devices, &server),
    }
}

#[test]
fn fleets_recover_from_what_loses_nothing() {
    for_each_seed(0..25, "recover", |seed| run(seed, Trouble::Harmless));
}

#[test]
fn fleets_converge_on_a_restored_server() {
    for_each_seed(0..12, "restored", |seed| run(seed, Trouble::Restored));
}

/// Clocks were given anew above an unsent correction that stayed in place; the walk over them never ended.
#[test]
fn new_clocks_above_an_unsent_correction() {
    run(132, Trouble::Restored);
}
