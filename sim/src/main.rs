//! Runs seeds of simulated fleets; shrinks what fails, and says how to run it again.
#![expect(clippy::print_stdout, reason = "it is what the command is for")]

use std::ops::Range;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use synchrotron_sim::{Broken, Fleet, Mix, Plan, Tally, profiles};

/// Simulates whole fleets: many devices, one server, a hostile network; deterministic by seed.
#[derive(Debug, Parser)]
#[command(name = "synchrotron-sim")]
struct Args {
    /// Seeds to run, such as `0..1000`.
    #[arg(long, value_parser = range, conflicts_with_all = ["seed", "plan"])]
    seeds: Option<Range<u64>>,
    /// One seed to run.
    #[arg(long)]
    seed: Option<u64>,
    /// A saved plan to run.
    #[arg(long)]
    plan: Option<PathBuf>,
    /// The fleet to run; each in turn, if none is named.
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(profiles::NAMES))]
    profile: Option<String>,
    /// How many steps each plan has.
    #[arg(long)]
    steps: Option<usize>,
    /// How many seeds run at once.
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints the event log of the one run.
    #[arg(long)]
    log: bool,
    /// Does not shrink what fails.
    #[arg(long)]
    raw: bool,
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or("a range looks like 0..1000")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    Ok(number(from)?..number(to)?)
}

impl Args {
    fn fleet(&self, name: Option<&str>, seed: u64) -> Option<Fleet> {
        let fleet = match name.or(self.profile.as_deref()) {
            Some(name) => profiles::by_name(name)?,
            None => profiles::of_seed(seed),
        };
        Some(match self.steps {
            Some(steps) => fleet.with_mix(|mix| Mix { steps, ..mix }),
            None => fleet,
        })
    }

    /// The command that runs a seed again.
    fn command(&self, plan: &Plan) -> String {
        let steps = self.steps.map(|steps| format!(" --steps {steps}")).unwrap_or_default();
        let Plan { seed, fleet, .. } = plan;
        format!("cargo run --release -p synchrotron-sim -- --seed {seed} --profile {fleet}{steps} --log")
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // A panic inside a run is a finding, which is reported with its plan.
    std::panic::set_hook(Box::new(|_| {}));
    let passed = match (&args.plan, args.seed) {
        (Some(path), _) => run_plan(&args, path),
        (None, Some(seed)) => run_seeds(&args, seed..seed + 1),
        (None, None) => run_seeds(&args, args.seeds.clone().unwrap_or(0..100)),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run_plan(args: &Args, path: &PathBuf) -> bool {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            println!("{}: {error}", path.display());
            return false;
        }
    };
    let plan = match Plan::from_text(&text) {
        Ok(plan) => plan,
        Err(error) => {
            println!("{}: {error}", path.display());
            return false;
        }
    };
    let Some(fleet) = args.fleet(Some(&plan.fleet), plan.seed) else {
        println!("there is no fleet {:?}", plan.fleet);
        return false;
    };
    let run = fleet.run(&plan);
    if args.log {
        print!("{}", run.log);
    }
    match &run.failure {
        None => println!("passed: {} executed, {} logged", run.executed, run.logged),
        Some(failure) => println!("{failure}"),
    }
    run.failure.is_none()
}

fn run_seeds(args: &Args, seeds: Range<u64>) -> bool {
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    let next = AtomicU64::new(seeds.start);
    let worker = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds.end {
                return Ok(tally);
            }
            let ran = run_seed(args, seed)?;
            tally.seeds += ran.seeds;
            tally.executed += ran.executed;
            tally.logged += ran.logged;
        }
    };
    let results: Vec<Result<Tally, ()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or(Err(()))).collect()
    });
    let Ok(tallies) = results.into_iter().collect::<Result<Vec<_>, ()>>() else { return false };
    let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum::<u64>();
    println!(
        "{} seeds passed: {} actions executed, {} records logged",
        sum(|tally| tally.seeds),
        sum(|tally| tally.executed as u64),
        sum(|tally| tally.logged as u64)
    );
    true
}

fn run_seed(args: &Args, seed: u64) -> Result<Tally, ()> {
    let fleet = args.fleet(None, seed).ok_or(())?;
    if args.log || args.raw {
        let plan = fleet.plan(seed);
        let run = fleet.run(&plan);
        if args.log {
            print!("{}", run.log);
        }
        if let Some(failure) = run.failure {
            println!("seed {seed}: {failure}\n{}", args.command(&plan));
            if args.raw {
                return Err(());
            }
        }
    }
    fleet.try_seed(seed).map_err(|broken: Box<Broken>| {
        println!("{broken}run the seed again: {}", args.command(&broken.shrunk.plan));
        println!("or save the plan above: cargo run --release -p synchrotron-sim -- --plan FILE --log");
    })
}
