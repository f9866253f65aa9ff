//! Batch + principal → log rows, canonical rows and outbox rows, in one transaction; or an outcome that says why not.
//!
//! Place in the journey: between `upload` and `publish`, for every transport. The hops, in order: bind the device,
//! epoch, earlier answer ([`known`]), [`validate`], lock, [`age`] and [`gate`], [`append`],
//! [`materialize`](crate::materialize), answer, commit.
//!
//! # Invariants
//! - All of a batch is kept, or none of it.
//! - A batch, or a record, that comes again changes nothing and gets the same answer.
//! - Nothing that a payload says about users is believed.
//! - Trouble of the server is never a rejection: rejected work is set aside by the device, retried work is not.

mod age;
mod append;
mod gate;
mod known;
mod validate;

use std::collections::{BTreeMap, BTreeSet};

use sqlx_postgres::{PgConnection, PgPool};
use synchrotron_core::model::{ActionId, AudienceKey, ServerIngestId, UserId};
use synchrotron_core::wire::{Fault, FaultCode, Outcome, RejectionKind, UploadBatch};

#[cfg(test)]
pub(crate) use age::AGE;
#[cfg(test)]
pub(crate) use gate::GATE;
pub(crate) use gate::audiences_of;
#[cfg(test)]
pub(crate) use known::KNOWN;
pub(crate) use known::{bind_client, read_epoch};

use crate::clock::now_ms;
use crate::materialize::{Catalogue, MaterializeError, Materializer, newest_positions};
use crate::pg::{Actor, query};
use crate::settings::Settings;
use append::Author;
use gate::LockedHeads;
use validate::Measured;

/// What ingest works with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ingest<'a> {
    /// Connections.
    pub(crate) pool: &'a PgPool,
    /// Bounds and the gate.
    pub(crate) settings: &'a Settings,
    /// The tracked tables.
    pub(crate) catalogue: &'a Catalogue,
}

/// One record that can never be accepted.
#[derive(Debug)]
struct Rejection {
    action: ActionId,
    kind: RejectionKind,
    reason: String,
}

/// Why ingest of a batch ends early.
#[derive(Debug, thiserror::Error)]
enum Decision {
    /// An answer that is not `Accepted`.
    #[error("decided: {0:?}")]
    Outcome(Box<Outcome>),
    /// Trouble of the server.
    #[error(transparent)]
    Database(#[from] sqlx_core::Error),
}

impl From<Outcome> for Decision {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(Box::new(outcome))
    }
}

impl From<Rejection> for Decision {
    fn from(Rejection { action, kind, reason }: Rejection) -> Self {
        Outcome::Rejected { action, kind, reason }.into()
    }
}

/// How long a device waits after trouble of the server, unless told otherwise.
const RETRY_AFTER_MS: u64 = 500;

impl Ingest<'_> {
    /// Decides the fate of one batch.
    pub(crate) async fn upload(&self, user_id: &UserId, batch: &UploadBatch) -> Outcome {
        match self.transact(user_id, batch).await {
            Ok(outcome) => outcome,
            Err(Decision::Outcome(outcome)) => *outcome,
            Err(Decision::Database(error)) => {
                tracing::warn!(error = %error, batch = %batch.batch_id, client = %batch.client_id, "ingest.retry");
                Outcome::Retry { after_ms: RETRY_AFTER_MS }
            }
        }
    }

    async fn transact(&self, user_id: &UserId, batch: &UploadBatch) -> Result<Outcome, Decision> {
        let mut tx = self.pool.begin().await?;
        if bind_client(&mut tx, batch.client_id, user_id).await? != user_id.as_str() {
            return Err(Outcome::Refused(foreign_client()).into());
        }
        let current = read_epoch(&mut tx).await?;
        if current != batch.epoch {
            tx.commit().await?;
            return Err(Outcome::EpochChanged { current }.into());
        }
        let records = validate::measure(batch);
        let hash = validate::batch_hash(&records);
        if let Some(outcome) = known::stored_outcome(&mut tx, batch, &hash).await? {
            return Ok(outcome);
        }
        query("/* ingest.begin */ SAVEPOINT batch").execute(&mut *tx).await?;
        let outcome = match self.take(&mut tx, user_id, batch, &records).await {
            Ok(ids) => Outcome::Accepted { ids },
            Err(Decision::Outcome(outcome)) => {
                query("/* ingest.undo */ ROLLBACK TO SAVEPOINT batch").execute(&mut *tx).await?;
                *outcome
            }
            Err(error) => return Err(error),
        };
        if matches!(outcome, Outcome::Accepted { .. } | Outcome::Rejected { .. }) {
            let names = (batch.client_id, batch.batch_id);
            known::store_outcome(&mut tx, names, user_id, &hash, &outcome).await?;
        }
        tx.commit().await?;
        Ok(outcome)
    }

    /// Everything between binding the device and the answer; nothing of it stays if it ends early.
    async fn take(
        &self,
        tx: &mut PgConnection,
        user_id: &UserId,
        batch: &UploadBatch,
        records: &[Measured<'_>],
    ) -> Result<BTreeMap<ActionId, ServerIngestId>, Decision> {
        let mut ids = known::known_records(tx, records).await?;
        let new: Vec<&Measured<'_>> = records.iter().filter(|r| !ids.contains_key(&r.upload.id)).collect();
        if new.is_empty() {
            return Ok(ids);
        }
        self.check(&new)?;
        let visible = audiences_of(tx, user_id).await?;
        let touched: BTreeSet<&AudienceKey> = new.iter().flat_map(|record| record.audiences()).collect();
        let heads = gate::lock_heads(tx, self.settings.head_gate, &touched, &visible).await?;
        age::check_age(tx, &new).await?;
        gate::check_heads(tx, batch, &heads, &visible).await?;
        let founded = founded_audiences(&new, &visible, &heads)?;
        known::check_amended(tx, &new, user_id, &visible).await?;

        let writable: BTreeSet<AudienceKey> = visible.iter().chain(founded.keys().copied()).cloned().collect();
        let author = Author { client_id: batch.client_id, user_id };
        let numbers = self.write(tx, author, &new, &heads, &writable).await?;
        check_founded(tx, user_id, &founded).await?;
        ids.extend(numbers);
        Ok(ids)
    }

    fn check(&self, new: &[&Measured<'_>]) -> Result<(), Decision> {
        let mut seen = BTreeSet::new();
        for record in new {
            if !seen.insert(record.upload.id) {
                let reason = "the id comes twice in the batch".to_owned();
                return Err(Rejection { action: record.upload.id, kind: RejectionKind::DuplicateId, reason }.into());
            }
            validate::check_record(record, self.settings, self.catalogue)?;
        }
        Ok(validate::check_clocks(new, self.settings, now_ms())?)
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        author: Author<'_>,
        new: &[&Measured<'_>],
        heads: &LockedHeads,
        writable: &BTreeSet<AudienceKey>,
    ) -> Result<Vec<(ActionId, ServerIngestId)>, Decision> {
        let rows: BTreeSet<_> = new.iter().flat_map(|record| &record.upload.rows).map(|p| p.row_key()).collect();
        let newest = newest_positions(tx, &Vec::from_iter(rows)).await?;
        let numbered = append::append(tx, author, new, heads).await?;
        let last_number = numbered.last().map_or(0, |record| record.number);
        let actor = Actor::introduce(tx, author.user_id, &self.settings.app_role).await?;
        let mut materializer = Materializer::new(actor, self.catalogue, writable, newest, last_number);
        materializer.begin().await?;
        for record in &numbered {
            materializer.record(*record).await.map_err(|error| match error {
                MaterializeError::Database(error) => Decision::Database(error),
                MaterializeError::Refused(complaint) => {
                    let (kind, reason) = (complaint.kind, complaint.reason);
                    Rejection { action: record.upload.id, kind, reason }.into()
                }
            })?;
        }
        materializer.end().await?;
        Ok(numbered.iter().map(|record| (record.upload.id, ServerIngestId::new(record.number))).collect())
    }
}

/// Audiences that the user is not in yet, each with the first record that writes to it.
///
/// An action may found an audience: make a project and its own membership in one. So a label that nobody used before is
/// judged when the upload's rows are there; one that has a history is simply not the user's.
fn founded_audiences<'b>(
    new: &[&Measured<'b>],
    visible: &BTreeSet<AudienceKey>,
    heads: &LockedHeads,
) -> Result<BTreeMap<&'b AudienceKey, ActionId>, Decision> {
    let mut founded = BTreeMap::new();
    for record in new {
        for patch in record.upload.rows.iter().filter(|patch| !visible.contains(&patch.audience_key)) {
            if heads.head(&patch.audience_key) > 0 {
                return Err(foreign_audience(record.upload.id, &patch.audience_key).into());
            }
            founded.entry(&patch.audience_key).or_insert(record.upload.id);
        }
    }
    Ok(founded)
}

async fn check_founded(
    tx: &mut PgConnection,
    user_id: &UserId,
    founded: &BTreeMap<&AudienceKey, ActionId>,
) -> Result<(), Decision> {
    if founded.is_empty() {
        return Ok(());
    }
    let audiences = audiences_of(tx, user_id).await?;
    match founded.iter().find(|(audience_key, _)| !audiences.contains(**audience_key)) {
        Some((audience_key, action)) => Err(foreign_audience(*action, audience_key).into()),
        None => Ok(()),
    }
}

fn foreign_audience(action: ActionId, audience_key: &AudienceKey) -> Rejection {
    let reason = format!("the user is not in audience {audience_key}");
    Rejection { action, kind: RejectionKind::Denied, reason }
}

/// The fault for a device that another user used first.
pub(crate) fn foreign_client() -> Fault {
    Fault::new(FaultCode::ForeignClient, "the device belongs to another user")
}
