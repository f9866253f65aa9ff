//! `nats-config`: the configuration of a nats-server that lets each user do what is theirs.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use synchrotron_server::api::nats::NatsConf;
use synchrotron_server::config::Given;

use super::{CommandError, say};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct NatsConfig {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Where NATS listens.
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:4222")]
    nats_listen: String,
    /// Where it tells of itself over HTTP, for health checks.
    #[arg(long, value_name = "ADDRESS")]
    monitor: Option<String>,
    /// Where it listens to WebSocket.
    #[arg(long, value_name = "ADDRESS")]
    websocket: Option<String>,
    /// PEM file of its certificate; connections are encrypted then.
    #[arg(long, value_name = "FILE", requires = "nats_key")]
    nats_certificate: Option<PathBuf>,
    /// PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "nats_certificate")]
    nats_key: Option<PathBuf>,
    /// Where streams are kept.
    #[arg(long, value_name = "FOLDER", default_value = "/data")]
    store_dir: PathBuf,
    /// How much they may hold.
    #[arg(long, value_name = "SIZE", default_value = "4GB")]
    max_file_store: String,
}

impl NatsConfig {
    /// Writes it to stdout.
    pub(super) fn run(self) -> Result<ExitCode, CommandError> {
        // It is for any NATS, so none need be named for the settings of NATS to count.
        let any = Given { key: "nats.url".to_owned(), origin: "nats-config".to_owned(), text: "127.0.0.1".to_owned() };
        let settings = self.settings.load_with(vec![any])?;
        let nats = settings.nats.expect("BUG: one is named");
        let conf = NatsConf {
            prefix: nats.prefix.clone(),
            listen: self.nats_listen,
            monitor: self.monitor,
            websocket: self.websocket,
            tls: self.nats_certificate.zip(self.nats_key),
            max_payload_bytes: settings.core.max_upload_bytes,
            store_dir: self.store_dir,
            max_file_store: self.max_file_store,
            ..NatsConf::new(nats.keys()?)
        };
        say(conf.to_string().trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
