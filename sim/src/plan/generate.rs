//! Makes a plan from a seed.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Birth, Mix, Plan, Step};
use crate::fleet::Fleet;

/// A kind of step, as drawn by weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Act,
    Sync,
    Message,
    Lose,
    BreakOff,
    Crash,
    Power,
    Disk,
    Clock,
    Cut,
    Refuse,
    Member,
    Recover,
    Restore,
    Upgrade,
    Destroy,
    Pass,
}

impl Fleet {
    /// The plan of a seed: the same for the same fleet, for ever.
    #[must_use]
    pub fn plan(&self, seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let mix = &self.mix;
        let count = random.random_range(mix.devices_max.min(2)..=mix.devices_max.max(1));
        let newest = self.newest_version();
        let devices = (0..count)
            .map(|number| Birth {
                // The first ones spread over the users; the others are second devices of some.
                member: if number < self.members.len() { number } else { random.random_range(0..self.members.len()) },
                skew_ms: if random.random_bool(0.5) { 0 } else { skew(&mut random, mix) },
                version: if random.random_bool(0.6) { newest } else { random.random_range(1..=newest) },
            })
            .collect();
        let steps = (0..mix.steps).map(|_| step(&mut random, mix, count)).collect();
        Plan { fleet: self.name.clone(), seed, devices, steps }
    }
}

fn skew(random: &mut StdRng, mix: &Mix) -> i64 {
    // Small ones reorder actions; large ones reach bounds.
    let max = if random.random_bool(0.7) { mix.skew_max_ms.min(500) } else { mix.skew_max_ms };
    random.random_range(-max..=max)
}

fn kind(random: &mut StdRng, mix: &Mix) -> Kind {
    let weights = [
        (mix.act, Kind::Act),
        (mix.sync, Kind::Sync),
        (mix.messages, Kind::Message),
        (mix.lose, Kind::Lose),
        (mix.break_off, Kind::BreakOff),
        (mix.crash, Kind::Crash),
        (mix.power, Kind::Power),
        (mix.disk, Kind::Disk),
        (mix.clock, Kind::Clock),
        (mix.cut, Kind::Cut),
        (mix.refuse, Kind::Refuse),
        (mix.member, Kind::Member),
        (mix.recover, Kind::Recover),
        (mix.restore, Kind::Restore),
        (mix.upgrade, Kind::Upgrade),
        (mix.destroy, Kind::Destroy),
        (4, Kind::Pass),
    ];
    let sum: u32 = weights.iter().map(|(weight, _)| weight).sum();
    let mut left = random.random_range(0..sum);
    for (weight, kind) in weights {
        if left < weight {
            return kind;
        }
        left -= weight;
    }
    Kind::Pass
}

fn step(random: &mut StdRng, mix: &Mix, count: usize) -> Step {
    let device = random.random_range(0..count);
    match kind(random, mix) {
        Kind::Act => Step::Draw { device, draw: random.random() },
        Kind::Sync => Step::Sync { device },
        Kind::Message => message(random, mix, device),
        Kind::Lose => Step::Lose { device, nth: random.random_range(0..8) },
        Kind::BreakOff => Step::BreakOff { device, nth: random.random_range(0..8), at: random.random_range(0..4_000) },
        Kind::Crash => match random.random_range(0..4) {
            0 => Step::Crash { device },
            1 => Step::CrashAfterCommit { device, commits: random.random_range(0..3) },
            _ => Step::CrashInside { device, calls: random.random_range(0..60) },
        },
        Kind::Power => Step::PowerCut { device },
        Kind::Disk => Step::DiskFails { device, calls: random.random_range(0..80) },
        Kind::Clock => match random.random_range(0..3) {
            0 => Step::Freeze { device, on: true },
            1 => Step::Freeze { device, on: false },
            _ => Step::Jump { device, by_ms: skew(random, mix) },
        },
        Kind::Cut => Step::Cut { device, on: random.random_bool(0.5) },
        Kind::Refuse => {
            if random.random_bool(0.7) {
                Step::Token { device, valid: random.random_bool(0.5) }
            } else {
                Step::Trouble { on: random.random_bool(0.4) }
            }
        }
        Kind::Member => Step::Member { device, nth: random.random_range(0..8), on: random.random_bool(0.5) },
        Kind::Recover => recover(random, device),
        Kind::Restore => Step::Restore { lost: random.random_range(0..20) },
        Kind::Upgrade => Step::Upgrade { device },
        Kind::Destroy => Step::Destroy { device },
        Kind::Pass => Step::Pass { ms: random.random_range(1..2_000) },
    }
}

fn recover(random: &mut StdRng, device: usize) -> Step {
    match random.random_range(0..12) {
        0..=5 => Step::Compact { keep: random.random_range(0..20) },
        6 => Step::Expire,
        7 | 8 => Step::Rebase { device },
        9 => Step::HardResync { device },
        _ => Step::Copied { device },
    }
}

fn message(random: &mut StdRng, mix: &Mix, device: usize) -> Step {
    // The oldest first, mostly: reordering is the exception.
    let nth = if random.random_bool(0.7) { 0 } else { random.random_range(0..6) };
    let again = random.random_range(0..100) < mix.doubled_percent;
    match random.random_range(0..14) {
        0 => Step::Session { device },
        1 | 2 => Step::Ask { device },
        3 | 4 => Step::Take { device, nth, again },
        5 | 6 => Step::Send { device },
        7 => Step::Arrive { device, nth, again },
        8 => Step::Conclude { device, nth, again },
        9 => Step::AskChunk { device },
        10 => Step::TakeChunk { device, nth, again },
        _ => Step::Slice { device, nth, again },
    }
}
