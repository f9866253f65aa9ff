//! `migrate`: the schema `synchrotron`, brought up to date.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::schema;

use super::{CommandError, say, say_json};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Migrate {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Migrate {
    /// Migrates, and says which migrations were missing.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let migrated = schema::migrate(&self.settings.load()?.core).await?;
        if self.json {
            say_json(&migrated)?;
        } else {
            for version in &migrated.applied {
                say(&format!("applied {:04} {}", version.number, version.name))?;
            }
            say(&format!("the schema synchrotron has version {}", migrated.version))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
