//! `republish`: slices of the log go into the stream again, after JetStream lost its store.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use synchrotron_server::api::nats::{Republished, republish};
use synchrotron_server::service::Service;

use super::{CommandError, duration, say, say_json};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Republish {
    #[command(flatten)]
    settings: SettingsFlags,
    /// How far back: 90s, 15m, 1h, 14d. Without it as far as the stream keeps messages, nats.stream_age_seconds_max.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "all")]
    newest: Option<Duration>,
    /// All that the log holds.
    #[arg(long)]
    all: bool,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Republish {
    /// Publishes.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let settings = self.settings.load()?;
        let nats = settings.nats.ok_or(CommandError::NoNats)?;
        let newest = if self.all { None } else { Some(self.newest.unwrap_or(nats.stream_age_max)) };
        let service = Service::connect(&settings.core).await?;
        let done = republish(&service, &nats, newest).await?;
        if self.json {
            say_json(&done)?;
        } else {
            let Republished { slices, records, messages, known, .. } = done;
            say(&format!(
                "{slices} slices with {records} records published in {messages} messages, of which {known} were there"
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
