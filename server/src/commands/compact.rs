//! `compact`: what is older than the retention leaves the log now, not within the hour.

use std::process::ExitCode;

use clap::Args;
use synchrotron_server::compaction::{self, Report};
use synchrotron_server::service::Service;
use tokio_util::sync::CancellationToken;

use super::{CommandError, say, say_json, told_to_stop};
use crate::flags::SettingsFlags;

/// Its flags.
#[derive(Args)]
pub(crate) struct Compact {
    #[command(flatten)]
    settings: SettingsFlags,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

impl Compact {
    /// Compacts until done or told to stop; what is done stays done.
    pub(super) async fn run(self) -> Result<ExitCode, CommandError> {
        let service = Service::connect(&self.settings.load()?.core).await?;
        let stop = CancellationToken::new();
        let stopping = stop.clone();
        tokio::spawn(async move {
            told_to_stop().await;
            stopping.cancel();
        });
        let report = compaction::run_once(&service, &stop).await?;
        if self.json {
            say_json(&report)?;
        } else {
            say(&describe(&report))?;
        }
        Ok(if report.elsewhere { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

fn describe(report: &Report) -> String {
    if report.elsewhere {
        return "another server is compacting".to_owned();
    }
    let Report { records, rows, images, audiences, left, outcomes, slices, ids, clients, .. } = report;
    format!(
        "records deleted     {records}, with {rows} effects on rows, in {audiences} audiences\n\
         images written      {images}\n\
         old records left    {left}\n\
         also forgotten      {outcomes} answers, {slices} slices, {ids} ids, {clients} devices"
    )
}
