//! Compaction as a task of the server.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::{CompactionError, Report, run_once};
use crate::service::Service;

/// A server that was just started has other things to do.
const FIRST_AFTER: Duration = Duration::from_secs(60);

/// Compacts now and then, until told to stop.
pub(crate) async fn run(service: Service, stop: CancellationToken) {
    let every = service.settings().compaction.every;
    let mut ticks = interval_at(Instant::now() + every.min(FIRST_AFTER), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        tell(&run_once(&service, &stop).await);
    }
}

fn tell(result: &Result<Report, CompactionError>) {
    match result {
        Ok(report) if report.records == 0 && report.left > 0 => {
            tracing::warn!(left = report.left, "old records are in the log, and none of them could be deleted");
        }
        Ok(report) if report.elsewhere => tracing::debug!("another server compacts"),
        Ok(Report { records, rows, images, left, outcomes, slices, ids, clients, .. }) => {
            tracing::info!(records, rows, images, left, outcomes, slices, ids, clients, "compacted");
        }
        Err(error) => tracing::warn!(%error, "compaction failed, and is tried again"),
    }
}
