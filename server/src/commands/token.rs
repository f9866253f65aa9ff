//! `token`: a token that a server with the same settings takes.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use synchrotron_core::model::UserId;
use synchrotron_server::auth::mint_for;

use super::{CommandError, duration, say};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Token {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Whom the token proves.
    #[arg(long, value_parser = parse_user)]
    user: UserId,
    /// How long it holds: a number with s, m, h or d.
    #[arg(long, default_value = "1h", value_name = "DURATION", value_parser = duration::parse)]
    ttl: Duration,
}

impl Token {
    /// Makes it.
    pub(super) fn run(self) -> Result<ExitCode, CommandError> {
        let settings = self.settings.load()?.core;
        settings.validate_tokens()?;
        say(&mint_for(&settings.jwt, &self.user, self.ttl)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_user(user: &str) -> Result<UserId, String> {
    UserId::new(user).map_err(|error| error.to_string())
}
