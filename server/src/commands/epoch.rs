//! `epoch`: another history begins, after the database was restored from a backup.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::epoch;
use synchrotron_server::service::Service;

use super::{CommandError, say, say_json};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Epoch {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Say that it is meant: every device takes snapshots of all its audiences.
    #[arg(long, required = true)]
    yes: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Epoch {
    /// Begins it.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let service = Service::connect(&self.settings.load()?.core).await?;
        let change = epoch::begin_new(&service).await?;
        if self.json {
            say_json(&change)?;
        } else {
            say(&format!("epoch {} has ended, {} begins", change.ended, change.begun))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
