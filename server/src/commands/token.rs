//! `token`: a token that a server with the same settings takes.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use synchrotron_core::model::UserId;
use synchrotron_server::auth::mint_for;

use super::{CommandError, say};
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
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    ttl: Ttl,
}

impl Token {
    /// Makes it.
    pub(super) fn run(self) -> Result<ExitCode, CommandError> {
        let settings = self.settings.load()?.core;
        settings.validate_tokens()?;
        say(&mint_for(&settings.jwt, &self.user, self.ttl.0)?)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn parse_user(user: &str) -> Result<UserId, String> {
    UserId::new(user).map_err(|error| error.to_string())
}

/// How long a token holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ttl(Duration);

impl FromStr for Ttl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit_at = text.find(|c: char| !c.is_ascii_digit()).ok_or("a unit is missing: s, m, h or d")?;
        let (number, unit) = text.split_at(unit_at);
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            "d" => 24 * 60 * 60,
            _ => return Err("the unit is s, m, h or d"),
        };
        let number: u32 = number.parse().map_err(|_| "a number is missing, or too great")?;
        Ok(Self(Duration::from_secs(seconds * u64::from(number))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        assert_eq!("90s".parse(), Ok(Ttl(Duration::from_secs(90))));
        assert_eq!("7d".parse(), Ok(Ttl(Duration::from_secs(7 * 86_400))));
        for wrong in ["", "7", "h", "1.5h", "-1h", "99999999999h", "1w"] {
            assert!(wrong.parse::<Ttl>().is_err(), "{wrong}");
        }
    }
}
