//! What an operator can ask for; one file each.
//!
//! A command is a struct of its flags with `run`, which says what was done on stdout and returns the exit code. What it
//! does is a function of the library.

mod check;
mod compact;
mod duration;
mod epoch;
mod migrate;
mod nats_config;
mod republish;
mod serve;
mod status;
mod token;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Subcommand;
use serde::Serialize;
use synchrotron_server::api::nats::NatsApiError;
use synchrotron_server::auth::MintError;
use synchrotron_server::compaction::CompactionError;
use synchrotron_server::config::{ConfigError, mistaken};
use synchrotron_server::settings::SettingsError;
use synchrotron_server::telemetry::{self, TelemetryError};
use synchrotron_server::{ServerError, StartError};

/// All commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Bring the schema up to date, and serve until told to stop.
    Serve(serve::Serve),
    /// Bring the schema up to date, and say what was done.
    Migrate(migrate::Migrate),
    /// Say what is wrong with tables, roles and policies, and how to mend it.
    Check(check::Check),
    /// Delete now what is older than the retention.
    Compact(compact::Compact),
    /// Begin another history, after the database was restored from a backup.
    Epoch(epoch::Epoch),
    /// Publish slices of the log again, into a JetStream that lost its store.
    Republish(republish::Republish),
    /// Say how Postgres, the log, the outbox and NATS are.
    Status(status::Status),
    /// Write the configuration of a nats-server that lets each user do what is theirs.
    NatsConfig(nats_config::NatsConfig),
    /// Make a token for a user, for development.
    Token(token::Token),
}

impl Command {
    /// Does what was asked for.
    pub(crate) async fn run(self) -> Result<ExitCode, CommandError> {
        // Only a server has spans to send; it says itself where they go.
        let _telemetry = match &self {
            Self::Serve(_) => None,
            _ => {
                let telemetry = telemetry::init(None)?;
                warn_of_mistaken_variables();
                Some(telemetry)
            }
        };
        match self {
            Self::Serve(serve) => serve.run().await,
            Self::Migrate(migrate) => migrate.run().await,
            Self::Check(check) => check.run().await,
            Self::Compact(compact) => compact.run().await,
            Self::Epoch(epoch) => epoch.run().await,
            Self::Republish(republish) => republish.run().await,
            Self::Status(status) => status.run().await,
            Self::NatsConfig(config) => config.run(),
            Self::Token(token) => token.run(),
        }
    }
}

/// Why a command did not do what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The settings do not fit together.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The database is not as it must be, or not there.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Compaction ended early; what was committed before stays done.
    #[error(transparent)]
    Compaction(#[from] CompactionError),
    /// It is about NATS, and the settings name none.
    #[error("no NATS is configured: set nats.url, NATS_URL or --nats-url")]
    NoNats,
    /// NATS refused, or cannot be reached.
    #[error(transparent)]
    Nats(#[from] NatsApiError),
    /// The server does not start.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// Events and spans cannot go where they should.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// No token can be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// What was to be said could not be written.
    #[error("cannot write to stdout: {0}")]
    Stdout(#[from] io::Error),
}

impl CommandError {
    /// 2 if only another command line or configuration can help.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let start = match self {
            Self::Config(_) | Self::Settings(_) | Self::NoNats | Self::Telemetry(_) | Self::Mint(_) => {
                return ExitCode::from(2);
            }
            Self::Start(start) | Self::Server(ServerError::Service(start)) => start,
            Self::Compaction(_) | Self::Nats(_) | Self::Server(_) | Self::Stdout(_) => {
                return ExitCode::FAILURE;
            }
        };
        if matches!(start, StartError::Settings(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
    }

    fn remedy(&self) -> Option<String> {
        match self {
            Self::Start(start) | Self::Server(ServerError::Service(start)) => start.remedy(),
            _ => None,
        }
    }
}

/// One line on stderr: what is wrong, and what mends it.
pub(crate) fn complain(error: &CommandError) {
    let what = error.to_string().replace('\n', " ");
    let line = match error.remedy() {
        Some(remedy) => format!("synchrotron-server: {what}; to mend it: {remedy}\n"),
        None => format!("synchrotron-server: {what}\n"),
    };
    // If nobody hears it, the exit code still says it.
    let _unheard = io::stderr().write_all(line.as_bytes());
}

/// A variable that no setting has is not read; who set it should hear of it where it can only be a mistake.
fn warn_of_mistaken_variables() {
    let variables = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (variable, meant) in mistaken(variables) {
        tracing::warn!(variable, meant, "this variable of the environment is no setting, and is not read");
    }
}

/// Writes a command's answer.
fn say(text: &str) -> Result<(), CommandError> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Writes a command's answer for programs: one JSON document on one line.
fn say_json(answer: &impl Serialize) -> Result<(), CommandError> {
    say(&serde_json::to_string(answer).expect("BUG: answers are plain data"))
}

/// Ctrl-C, or what a supervisor sends.
async fn told_to_stop() {
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::warn!(%error, "Ctrl-C is not heard");
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = interrupted => {}
        () = terminated() => {}
    }
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM is not heard");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}
