//! `status`: how a deployment is.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::api::nats::NatsStatus;
use synchrotron_server::status::{self, LogStatus};

use super::{CommandError, say, say_json};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Status {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Status {
    /// Asks, and fails if something that is configured is not there.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let status = status::Status::read(&self.settings.load()?).await?;
        if self.json {
            say_json(&status)?;
        } else {
            say(&describe(&status))?;
        }
        Ok(if status.is_well() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn describe(status: &status::Status) -> String {
    let schema = status.schema_version.map_or_else(|| "none".to_owned(), |version| version.to_string());
    let mut lines = vec![
        line("server", status.server_version),
        line("postgres", &status.postgres_version),
        line("schema version", format!("{schema} (this program needs {})", status.schema_version_needed)),
    ];
    lines.extend(status.log.iter().flat_map(describe_log));
    match &status.nats {
        Some(nats) => lines.extend(describe_nats(nats)),
        None => lines.push(line("nats", "not configured")),
    }
    lines.join("\n")
}

fn describe_log(log: &LogStatus) -> Vec<String> {
    let about =
        |estimate: Option<i64>| estimate.map_or_else(|| "not known yet".to_owned(), |count| format!("about {count}"));
    let age = |seconds: Option<i64>| seconds.map_or_else(|| "none".to_owned(), |seconds| format!("{seconds} s ago"));
    let outbox = &log.outbox;
    let waiting = match outbox.oldest_seconds {
        Some(seconds) => format!("{} slices wait, the first for {seconds} s", outbox.slices),
        None => "empty".to_owned(),
    };
    vec![
        line("epoch", log.epoch),
        line("server_ingest_id", log.server_ingest_id),
        line("audiences", about(log.audiences)),
        line("records", about(log.records)),
        line("modified rows", about(log.modified_rows)),
        line("oldest record", age(log.oldest_record_seconds)),
        line("outbox", waiting),
    ]
}

fn describe_nats(nats: &NatsStatus) -> Vec<String> {
    let mut lines = vec![line("nats", nats.nats_server_version.as_deref().unwrap_or("away"))];
    lines.extend(nats.error.iter().map(|error| line("nats error", error)));
    lines.extend(nats.not_shrunk.iter().map(|fault| line("not shrunk", fault)));
    lines.extend(nats.streams.iter().map(|stream| {
        let waiting = stream.waiting.map(|waiting| format!(", {waiting} waiting")).unwrap_or_default();
        let state = if stream.exists {
            format!("{} messages, {} bytes{waiting}", stream.messages, stream.bytes)
        } else {
            "not there yet: a server that starts makes it".to_owned()
        };
        line(&format!("stream {}", stream.name), state)
    }));
    lines
}

fn line(name: &str, value: impl std::fmt::Display) -> String {
    format!("{name:<18} {value}")
}
