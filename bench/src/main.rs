//! What Synchrotron costs. Every figure stands beside a floor that was measured in the same run.
//!
//! `cargo run --release -p synchrotron-bench -- client --json out.json`, or `server`, or `e2e`. See `docs/benchmarks.md`.

mod app;
mod client;
mod device;
mod e2e;
mod error;
mod floor;
mod history;
mod report;
mod rounds;
mod server;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use self::client::memory::Peak;
use self::e2e::backlog::Away;
use self::e2e::serve::Serve;
use self::error::BenchError;
use self::report::Entry;
use self::rounds::Rounds;

/// Measures Synchrotron against floors of the same run.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The client's engine on SQLite, against plain SQL that leaves the same rows.
    Client(Measure),
    /// The server on a durable Postgres, against plain statements on the same one.
    Server(Measure),
    /// Devices, NATS, the server and Postgres, against plain messages and plain commits on the same ones.
    E2e(Measure),
    /// Prints the peak memory of one step. Run by `client`, as a process of its own.
    #[command(hide = true)]
    Peak(Peak),
    /// Serves. Run by `e2e`, as a process of its own.
    #[command(hide = true)]
    Serve(Serve),
    /// Works offline, goes online, and says what that was like. Run by `e2e`, as a process of its own.
    #[command(hide = true)]
    Away(Away),
}

/// What to measure, and where the figures go.
#[derive(Debug, Args)]
struct Measure {
    /// Also writes the figures to this file, as a JSON array.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds that each figure is the median of.
    #[arg(long, default_value = "7")]
    rounds: Rounds,
    /// Only benchmarks with this in their name. Client: execute_insert, execute_update, integrate, reconcile, memory;
    /// server: ingest, late, fetch, snapshot; e2e: latency, fanout, idle, bytes, backlog, storm.
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Small sizes: shows that everything runs, measures nothing worth quoting.
    #[arg(long)]
    quick: bool,
}

fn main() -> Result<(), BenchError> {
    match Cli::parse().command {
        Command::Client(measure) => tell(&measure, &client::run(&measure)?),
        Command::Server(measure) => tell(&measure, &server::run(&measure)?),
        Command::E2e(measure) => tell(&measure, &e2e::run(&measure)?),
        Command::Peak(peak) => peak.print(),
        Command::Serve(serve) => serve.run(),
        Command::Away(away) => away.print(),
    }
}

fn tell(measure: &Measure, entries: &[Entry]) -> Result<(), BenchError> {
    report::print(entries)?;
    measure.json.as_deref().map_or(Ok(()), |path| report::write_json(path, entries))
}
