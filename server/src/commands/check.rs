//! `check`: what is wrong with an app's tables, roles and policies, and with streams.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::check::{Finding, Level, check, check_nats};

use super::{CommandError, say, say_json};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Check {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Answer in JSON: a list of findings with level, kind, where, what and remedy.
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Looks, and fails if something is wrong; warnings are no failure.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let settings = self.settings.load()?;
        if let Some(nats) = &settings.nats {
            nats.validate()?;
        }
        let mut findings = check(&settings.core).await?;
        if let Some(nats) = &settings.nats {
            findings.extend(check_nats(nats).await);
            Finding::sort(&mut findings);
        }
        if self.json {
            say_json(&findings)?;
        } else {
            for finding in &findings {
                say(&finding.to_string())?;
            }
            say(&summary(&findings))?;
        }
        let errors = findings.iter().any(|finding| finding.level == Level::Error);
        Ok(if errors { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn summary(findings: &[Finding]) -> String {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    format!("errors: {}, warnings: {}", count(Level::Error), count(Level::Warning))
}
