//! Random fleets: real engines on real SQLite files against the in-memory server must end as the rules say.
//!
//! The rules are those of `design.md` section 4; the fleets follow its executable model. Every failure prints its seed
//! and the command that runs it again: `FLEET_SEED=17 cargo test -p synchrotron-core --test fleet`.

mod bookings;
mod chaos;
mod device;
mod recovery;

use std::ops::Range;

/// Runs one fleet per seed; `FLEET_SEED` runs just that one.
fn for_each_seed(seeds: Range<u64>, test: &str, run: impl Fn(u64)) {
    let one = std::env::var("FLEET_SEED").ok().map(|seed| seed.parse().expect("FLEET_SEED is a number"));
    for seed in one.map_or(seeds, |seed: u64| seed..seed + 1) {
        let rerun = format!("FLEET_SEED={seed} cargo test -p synchrotron-core --test fleet {test}");
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(seed)));
        assert!(outcome.is_ok(), "seed {seed} failed; run it again with: {rerun}");
    }
}
