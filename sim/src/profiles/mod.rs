//! The fleets that this project runs itself. They use nothing that an app could not.

mod bookings;
mod chaos;
mod family;
mod moves;

use crate::fleet::Fleet;
use crate::plan::Mix;

/// A fleet by its name; see [`NAMES`].
#[must_use]
pub fn by_name(name: &str) -> Option<Fleet> {
    let calm = Mix::calm();
    let mix = Mix::default();
    Some(match name {
        "calm" => chaos::fleet(name, Mix { devices_max: 5, ..calm }),
        "chaos" => chaos::fleet(name, Mix { devices_max: 5, ..mix }),
        "slices" => chaos::fleet(name, Mix { messages: 120, sync: 6, steps: 200, ..calm }),
        "crashes" => chaos::fleet(name, Mix { crash: 20, disk: 4, ..mix }),
        "power_cuts" => chaos::fleet(name, Mix { power: 20, recover: 2, ..mix }),
        "clocks" => chaos::fleet(name, Mix { clock: 15, ..mix }),
        "bookings" => bookings::fleet(name, Mix { devices_max: 5, ..calm }),
        "bookings_chaos" => bookings::fleet(name, mix),
        "bookings_crashes" => bookings::fleet(name, Mix { crash: 15, destroy: 1, ..mix }),
        "membership" => chaos::fleet(name, Mix { member: 12, devices_max: 5, ..mix }),
        "recovery" => chaos::fleet(name, Mix { member: 4, recover: 8, ..mix }),
        "far_clocks" => chaos::fleet(name, Mix { clock: 8, skew_max_ms: 20_000_000, recover: 2, ..mix }),
        "epochs" => chaos::fleet(name, Mix { restore: 2, recover: 2, ..mix }),
        "everything" => chaos::fleet(
            name,
            Mix { member: 4, recover: 4, restore: 1, crash: 8, disk: 2, destroy: 1, skew_max_ms: 5_000_000, ..mix },
        ),
        "bookings_power_cuts" => bookings::fleet(name, Mix { power: 15, crash: 5, ..mix }),
        "bookings_recovery" => bookings::fleet(name, Mix { recover: 8, ..mix }),
        "bookings_versions" => bookings::versions(name, Mix { upgrade: 2, ..calm }),
        "family" => family::fleet(name, mix),
        "moves" => moves::fleet(name, Mix { devices_max: 5, ..mix }),
        _ => return None,
    })
}

/// The names of all fleets.
pub const NAMES: [&str; 19] = [
    "calm",
    "chaos",
    "slices",
    "crashes",
    "clocks",
    "bookings",
    "bookings_chaos",
    "bookings_crashes",
    "membership",
    "recovery",
    "far_clocks",
    "epochs",
    "everything",
    "bookings_recovery",
    "bookings_versions",
    "family",
    "moves",
    "power_cuts",
    "bookings_power_cuts",
];

/// The fleet of a seed when none is named: each in turn.
///
/// # Panics
/// Never: every name has a fleet.
#[must_use]
pub fn of_seed(seed: u64) -> Fleet {
    let index = usize::try_from(seed % NAMES.len() as u64).expect("BUG: a small number");
    by_name(NAMES[index]).expect("BUG: every name has a fleet")
}
