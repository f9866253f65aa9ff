//! Peak memory: each step in a process of its own, which says how much it ever held.
//!
//! The figure is Linux's `VmHWM`: program, SQLite's page cache and the step's own data. Target: a history of 100,000 actions
//! adds nothing that grows with it. On other systems there is no such figure, and none is given.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use clap::{Args, ValueEnum};
use synchrotron_core::store::Durability;

use super::{Bench, reconcile};
use crate::app::Step;
use crate::device::Device;
use crate::error::BenchError;
use crate::floor::Floor;
use crate::report::{Circumstances, Entry};

/// What the process does before it says how much memory it had at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Holding {
    /// Own actions.
    Execute,
    /// Remote actions on a device with nothing pending.
    Integrate,
    /// Remote actions against pending ones.
    Reconcile,
}

impl Holding {
    const ALL: [Self; 3] = [Self::Execute, Self::Integrate, Self::Reconcile];

    fn name(self) -> &'static str {
        match self {
            Self::Execute => "execute",
            Self::Integrate => "integrate",
            Self::Reconcile => "reconcile",
        }
    }
}

/// One step in this process.
#[derive(Debug, Args)]
pub(crate) struct Peak {
    /// The database to work on.
    database: PathBuf,
    /// What to do.
    holding: Holding,
    /// Own actions.
    pending: u32,
    /// Others' actions.
    remote: u32,
    /// Plain rusqlite instead of the engine.
    #[arg(long)]
    floor: bool,
}

impl Peak {
    /// Does the step and prints the peak, in KiB.
    pub(crate) fn print(&self) -> Result<(), BenchError> {
        let worked = if self.floor { self.work_floor() } else { self.work() };
        worked?;
        let status = std::fs::read_to_string("/proc/self/status")?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
        Ok(writeln!(std::io::stdout(), "{}", peak.trim().trim_end_matches(" kB"))?)
    }

    fn own(&self) -> impl Iterator<Item = Step> {
        let pending = if self.holding == Holding::Integrate { 0 } else { self.pending };
        reconcile::own(self.pending, self.remote).take(pending as usize)
    }

    fn work(&self) -> Result<(), BenchError> {
        let mut device = Device::open(&self.database, Durability::Normal)?;
        self.own().try_for_each(|step| device.execute(step))?;
        if self.holding != Holding::Execute {
            let cursor = device.cursor()?;
            device.integrate(reconcile::others(self.remote, cursor))?;
        }
        Ok(())
    }

    fn work_floor(&self) -> Result<(), BenchError> {
        let cursor = Device::open(&self.database, Durability::Normal)?.cursor()?;
        let mut floor = Floor::open(&self.database, Durability::Normal)?;
        let own: Vec<Step> = self.own().collect();
        own.iter().try_for_each(|step| floor.execute(step))?;
        match self.holding {
            Holding::Execute => Ok(()),
            Holding::Integrate => floor.integrate(&reconcile::others(self.remote, cursor)),
            Holding::Reconcile => floor.reconcile(&own, &reconcile::others(self.remote, cursor)),
        }
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Entry>, BenchError> {
    let mut entries = Vec::new();
    if !cfg!(target_os = "linux") {
        return Ok(entries);
    }
    for holding in Holding::ALL {
        let mut without_history = None;
        for history in &bench.sizes.histories {
            let (ours, floor) = (peak(bench, holding, *history, false)?, peak(bench, holding, *history, true)?);
            let of = Circumstances::new("MiB").with("history", *history);
            entries.push(of.entry(format!("memory_{}", holding.name()), ours, floor));
            match without_history {
                None => without_history = Some(ours),
                Some(none) => entries.push(of.entry(format!("memory_{}_flatness", holding.name()), ours, none)),
            }
        }
    }
    Ok(entries)
}

/// The median peak of as many processes as there are rounds, in MiB.
fn peak(bench: &Bench, holding: Holding, history: u32, floor: bool) -> Result<f64, BenchError> {
    let (pending, remote) = bench.sizes.reconciled;
    let mut peaks = Vec::new();
    for _round in 0..bench.rounds.count() {
        let database = bench.histories.copy(history)?;
        let mut process = Command::new(std::env::current_exe()?);
        process.arg("peak").arg(database.path()).args([holding.name(), &pending.to_string(), &remote.to_string()]);
        if floor {
            process.arg("--floor");
        }
        let said = process.output()?;
        let answer = String::from_utf8_lossy(&said.stdout).trim().to_owned();
        let kib: u32 = answer.parse().map_err(|_| BenchError::NoPeak {
            step: holding.name(),
            answer: format!("{answer}{}", String::from_utf8_lossy(&said.stderr)),
        })?;
        peaks.push(kib);
    }
    peaks.sort_unstable();
    Ok(f64::from(peaks[peaks.len() / 2]) / 1024.0)
}
