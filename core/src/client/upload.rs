//! Uploads: batch after batch until nothing is pending, one on its way at a time.
//!
//! Place in the journey: after `execute`, when the driver is online. An outcome is concluded, and the next batch made, in one
//! step of the engine: each step of its own would be a way to another thread and back.
//!
//! # Invariants
//! - No outcome makes it spin: what was said to be settled and is not, and what needs a fetch, is sent again after a wait.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::Instrument;
use uuid::Uuid;

use super::SyncError;
use super::driver::now_ms;
use super::exchange::Exchange;
use crate::engine::{Concluded, Engine, EngineError, SentBatch};
use crate::model::{ActionId, AudienceKey, BatchId};
use crate::store::SqliteStore;
use crate::wire::Outcome;

/// What to upload.
enum Ready {
    Batch(SentBatch),
    /// Nothing that can go now.
    Nothing,
    /// Rows wait for a snapshot: before it is here, nothing goes.
    Stale,
}

/// How uploading ended.
pub(super) enum Uploaded {
    /// Nothing is pending that can go now, and no rows wait for a snapshot.
    All,
    /// The user's audiences are others now: the server may want this device to have them first.
    OtherAudiences,
    /// The server is busy, and says how long at least.
    PutOff { after: Duration, outcome: Outcome },
}

impl Exchange {
    /// Uploads until nothing is pending.
    pub(super) async fn upload(&self, audiences: &BTreeSet<AudienceKey>) -> Result<Uploaded, SyncError> {
        let mut again = self.soon_again();
        let mut settled: Vec<ActionId> = Vec::new();
        let mut restamped = false;
        let mut next = self.begin_upload().await?;
        loop {
            let sent = match next {
                Ready::Batch(sent) => sent,
                Ready::Nothing => return Ok(Uploaded::All),
                Ready::Stale => {
                    if !self.fetch(audiences).await? {
                        return Ok(Uploaded::OtherAudiences);
                    }
                    next = self.begin_upload().await?;
                    continue;
                }
            };
            let ids = sent.batch.records.iter().map(|record| record.id).collect();
            if ids == settled {
                // The server said that it is done with them, and they are still here.
                sleep(again.next()).await;
            }
            let span =
                tracing::debug_span!("upload", batch_id = %sent.batch.batch_id, records = sent.batch.records.len());
            let outcome = self.network.upload(&sent.batch).instrument(span).await?;
            let (concluded, ready) = self.conclude(sent, outcome.clone()).await?;
            next = ready;
            match concluded {
                Concluded::Settled(_) => settled = ids,
                Concluded::Restamped(_) if !restamped => restamped = true,
                Concluded::Fetch | Concluded::Snapshot => {
                    // The first retry is soon: only contention makes devices wait for each other.
                    if !self.fetch(audiences).await? {
                        return Ok(Uploaded::OtherAudiences);
                    }
                    sleep(again.next()).await;
                    next = self.begin_upload().await?;
                }
                Concluded::Later => {
                    return match outcome {
                        Outcome::Retry { after_ms } => {
                            Ok(Uploaded::PutOff { after: Duration::from_millis(after_ms), outcome })
                        }
                        outcome => Err(SyncError::NotTaken { outcome }),
                    };
                }
                Concluded::Restamped(_) => return Err(SyncError::NotTaken { outcome }),
            }
        }
    }

    /// Whatever changed what is pending has counted it: an action that was just executed waits for no more than its batch.
    async fn begin_upload(&self) -> Result<Ready, SyncError> {
        self.step(next_batch).await
    }

    /// Takes an outcome; with what goes next, where that needs no fetch before.
    async fn conclude(&self, sent: SentBatch, outcome: Outcome) -> Result<(Concluded, Ready), SyncError> {
        let shared = Arc::clone(&self.shared);
        self.step(move |engine| {
            let concluded = engine.conclude(&sent, &outcome, now_ms())?;
            let next = match &concluded {
                Concluded::Settled(committed) | Concluded::Restamped(committed) => {
                    shared.publish(committed.clone());
                    shared.count(engine)?;
                    next_batch(engine)?
                }
                Concluded::Fetch | Concluded::Snapshot | Concluded::Later => Ready::Nothing,
            };
            Ok((concluded, next))
        })
        .await
    }
}

/// What goes next.
fn next_batch(engine: &mut Engine<SqliteStore>) -> Result<Ready, EngineError> {
    Ok(match engine.next_batch(BatchId::from_uuid(Uuid::now_v7()))? {
        Some(sent) => Ready::Batch(sent),
        None if engine.due()?.snapshot => Ready::Stale,
        None => Ready::Nothing,
    })
}
