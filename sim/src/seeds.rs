//! Many seeds: runs each, and says how to run a broken one again.

use std::fmt;
use std::ops::Range;

use crate::fleet::Fleet;
use crate::shrink::Shrunk;

/// What was run, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many seeds.
    pub seeds: u64,
    /// How many actions were executed on devices.
    pub executed: usize,
    /// How many records the servers accepted, corrections included.
    pub logged: usize,
}

/// A seed broke a promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// The seed.
    pub seed: u64,
    /// The plan that it made, shrunk, and how that fails.
    pub shrunk: Shrunk,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shrunk { plan, failure, tries } = &self.shrunk;
        writeln!(f, "fleet {}, seed {}: {failure}", plan.fleet, self.seed)?;
        writeln!(f, "the plan, shrunk in {tries} tries to {} steps:", plan.steps.len())?;
        f.write_str(&plan.to_text())
    }
}

impl Fleet {
    /// Runs one seed.
    ///
    /// # Errors
    /// [`Broken`] holds the shrunk plan.
    pub fn try_seed(&self, seed: u64) -> Result<Tally, Box<Broken>> {
        let plan = self.plan(seed);
        let run = self.run(&plan);
        if run.failure.is_none() {
            return Ok(Tally { seeds: 1, executed: run.executed, logged: run.logged });
        }
        let shrunk = self.shrink(&plan).expect("BUG: the same plan fails again");
        Err(Box::new(Broken { seed, shrunk }))
    }

    /// Runs seeds, for tests. `SIM_SEED` in the environment runs just that one.
    ///
    /// # Panics
    /// If a seed breaks a promise: with the shrunk plan and how to run the seed again.
    pub fn check(&self, seeds: Range<u64>) -> Tally {
        let one = std::env::var("SIM_SEED").ok().and_then(|seed| seed.parse::<u64>().ok());
        let mut tally = Tally::default();
        for seed in one.map_or(seeds, |seed| seed..seed + 1) {
            match self.try_seed(seed) {
                Ok(ran) => {
                    tally.seeds += ran.seeds;
                    tally.executed += ran.executed;
                    tally.logged += ran.logged;
                }
                Err(broken) => panic!("{broken}run this test again with SIM_SEED={seed}"),
            }
        }
        tally
    }
}
