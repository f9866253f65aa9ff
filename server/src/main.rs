//! The binary: a command and its configuration in, an exit code out.
//!
//! Exit codes: 0, done and well; 1, it failed or found something wrong; 2, the command line or the configuration is wrong,
//! so that trying again cannot help.

mod commands;
mod flags;

use std::process::ExitCode;

use clap::Parser;

/// Synchrotron's server: offline-first sync for Postgres, live over NATS, and over HTTP.
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: commands::Command,
}

#[tokio::main]
async fn main() -> ExitCode {
    match CommandLine::parse().command.run().await {
        Ok(code) => code,
        Err(error) => {
            commands::complain(&error);
            error.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        CommandLine::command().debug_assert();
    }
}
