//! `serve`: a server until it is told to stop, or cannot go on.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::config::Given;
use synchrotron_server::{RunningServer, Server, telemetry};

use super::{CommandError, told_to_stop, warn_of_mistaken_variables};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Serve {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Refuse a schema that is not up to date, instead of migrating it.
    #[arg(long)]
    no_migrate: bool,
}

impl Serve {
    /// Serves.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let no_migrate =
            Given { key: "migrate".to_owned(), origin: "--no-migrate".to_owned(), text: "false".to_owned() };
        let more = if self.no_migrate { vec![no_migrate] } else { Vec::new() };
        let settings = self.settings.load_with(more)?;
        let _telemetry = telemetry::init(settings.core.otlp_endpoint.as_deref())?;
        warn_of_mistaken_variables();
        let server = Server::start(settings).await?;
        Ok(serve(server).await)
    }
}

async fn serve(mut server: RunningServer) -> ExitCode {
    tokio::select! {
        () = told_to_stop() => {
            tracing::info!("stops");
            server.shutdown().await;
            ExitCode::SUCCESS
        }
        task = server.failed() => {
            tracing::error!(?task, "a task has ended that should not");
            ExitCode::FAILURE
        }
    }
}
