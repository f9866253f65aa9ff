//! `cargo demo`: two people, one theatre, real Postgres and real NATS, in one minute.
//!
//! `cargo demo -- --check` prints only a JSON object of checks and figures.

use std::process::ExitCode;

use clap::Parser;
use synchrotron_examples::report::Report;
use synchrotron_examples::story;

/// Plays the demo.
#[derive(Debug, Parser)]
#[command(name = "cargo demo")]
struct Arguments {
    /// Print only a JSON object of the checks and figures.
    #[arg(long)]
    check: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "error".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut report = Report::new(arguments.check);
    let played = tokio::select! {
        played = story::play(&mut report) => played,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    report.finish();
    match played {
        Ok(()) if report.all_hold() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!(error = %error, "the demo stopped");
            ExitCode::FAILURE
        }
    }
}
