//! One transaction for all uploads that wait together.
//!
//! Place in the journey: after the [`queue`](super::queue). Postgres makes one commit durable in the time in which it
//! makes a hundred durable, and one statement for many rows is one way there and back.
//!
//! # Invariants
//! - Uploads are first taken together; one that cannot be taken is left out, and then tried alone within a savepoint. So
//!   nobody is refused for what another sent, and each answer is what it would be if the uploads had come one by one.
//! - Whoever is refused leaves nothing: the transaction goes back to the savepoint.
//! - Answers are told after the commit, and those that bind are kept in it.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{ClientId, Patch, UserId};
use synchrotron_core::wire::{Outcome, RejectionKind};

use super::answers::Answers;
use super::known::{self, Known};
use super::pass::{Candidate, Decided, Pass, PassError};
use super::recall::Recall;
use super::validate::{self, Measured};
use super::{Ingest, RETRY_AFTER_MS, Upload, foreign_client};
use crate::capture::is_staged;
use crate::materialize::Pace;
use crate::pg::{act_as_server, query};

/// A script for fewer uploads takes longer than it spares.
const SCRIPTED_MIN: usize = 3;
/// So many refused uploads are left out of a group one after the other; with more, each is tried alone.
const LEFT_OUT_MAX: usize = 3;

/// An upload that is not answered yet.
#[derive(Debug)]
pub(super) struct Open<'b> {
    /// Its place in the group.
    pub(super) place: usize,
    /// As it came.
    pub(super) upload: &'b Upload,
    /// Its records, with what identifies them.
    pub(super) records: Vec<Measured<'b>>,
    /// Of the whole of it.
    pub(super) hash: [u8; 32],
}

/// What is decided of a group, by place.
type Decisions = Vec<Option<Decided>>;

impl Ingest {
    /// Decides the fates of uploads of different devices in one transaction, which waits for no lock longer than this.
    pub(super) async fn commit(
        &self,
        uploads: &[&Upload],
        lock_within: Duration,
    ) -> Result<Vec<Outcome>, sqlx_core::Error> {
        let open: Vec<Open<'_>> = uploads.iter().copied().enumerate().map(measure).collect();
        let hashes: Vec<[u8; 32]> = open.iter().map(|open| open.hash).collect();
        let mut decisions: Decisions = vec![None; uploads.len()];
        // The setting tells the triggers on tracked tables that what is written is in the log (crate::capture).
        let within = lock_within.as_millis();
        let begin = format!("BEGIN; SET LOCAL lock_timeout = {within}; SET LOCAL synchrotron.materializing = 'on'");
        // Safe: a number in words of ours.
        let mut tx = self.pool.begin_with(AssertSqlSafe(begin)).await?;
        let (open, recall) = answer_known(&mut tx, open, &mut decisions).await?;
        if !open.is_empty() {
            self.decide(&mut tx, &open, recall, &mut decisions).await?;
        }
        let decisions: Vec<Decided> =
            decisions.into_iter().map(|decided| decided.expect("BUG: every upload is answered")).collect();
        let mut rest = Answers::default();
        for ((upload, hash), Decided { outcome, kept }) in uploads.iter().zip(&hashes).zip(&decisions) {
            if !kept && matches!(outcome, Outcome::Accepted { .. } | Outcome::Rejected { .. }) {
                rest.add(upload, hash, outcome);
            }
        }
        if !rest.is_empty() {
            act_as_server(&mut tx).await?;
            rest.store(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(decisions.into_iter().map(|decided| decided.outcome).collect())
    }

    /// Takes uploads together, as far as that goes, and the rest one by one.
    async fn decide(
        &self,
        tx: &mut PgConnection,
        open: &[Open<'_>],
        Recall { audiences, known, .. }: Recall<'_>,
        decisions: &mut Decisions,
    ) -> Result<(), sqlx_core::Error> {
        let candidate = |open| Candidate::new(open, &audiences);
        let mut together: Vec<Candidate<'_>> = open.iter().map(candidate).collect();
        let mut alone: Vec<Candidate<'_>> = Vec::new();
        let mut pace = if together.len() < SCRIPTED_MIN { Pace::Hopeful } else { Pace::Scripts };
        while !together.is_empty() {
            let pass = Pass { ingest: self, candidates: &together, known: &known, pace };
            match self.attempt(tx, &pass).await? {
                Ok(decided) => {
                    for (candidate, decided) in together.drain(..).zip(decided) {
                        decisions[candidate.open.place] = Some(decided);
                    }
                }
                Err(PassError::TooFast) => pace = Pace::Runs,
                Err(PassError::Refused { place, .. }) if alone.len() < LEFT_OUT_MAX => {
                    alone.push(together.remove(place));
                }
                Err(_) => alone.append(&mut together),
            }
        }
        alone.sort_by_key(|candidate| candidate.open.place);
        for candidate in alone {
            act_as_server(tx).await?;
            // Those before it may have brought the same records.
            let known = Known::read(tx, &candidate.open.records).await?;
            let candidates = std::slice::from_ref(&candidate);
            let pass = Pass { ingest: self, candidates, known: &known, pace: Pace::OneByOne };
            let decided = match self.attempt(tx, &pass).await? {
                Ok(mut decided) => decided.remove(0),
                Err(PassError::Refused { outcome, .. }) => {
                    Decided { outcome: unless_written(tx, candidate.open, *outcome).await?, kept: false }
                }
                Err(PassError::Clash(error)) => return Err(error),
                Err(PassError::TooFast) => unreachable!("BUG: effects that are applied one by one need no slower pace"),
            };
            decisions[candidate.open.place] = Some(decided);
        }
        Ok(())
    }

    /// One pass, of which nothing stays if it fails.
    async fn attempt(
        &self,
        tx: &mut PgConnection,
        pass: &Pass<'_, '_>,
    ) -> Result<Result<Vec<Decided>, PassError>, sqlx_core::Error> {
        query("/* ingest.begin */ SAVEPOINT pass").execute(&mut *tx).await?;
        let done = match pass.run(tx).await {
            Ok(decided) => return Ok(Ok(decided)),
            Err(error) => error.undoable()?,
        };
        query("/* ingest.undo */ ROLLBACK TO SAVEPOINT pass").execute(&mut *tx).await?;
        Ok(Err(done))
    }
}

/// A row that plain SQL has moved or hidden, and that is not in the log yet, is not where its device could know it to be. It
/// is asked again, when the device can have seen why.
async fn unless_written(tx: &mut PgConnection, open: &Open<'_>, outcome: Outcome) -> Result<Outcome, sqlx_core::Error> {
    let of_the_row =
        matches!(outcome, Outcome::Rejected { kind: RejectionKind::AudienceMismatch | RejectionKind::Denied, .. });
    let rows = || open.upload.batch.records.iter().flat_map(|record| &record.rows).map(Patch::row_key).collect();
    if of_the_row && is_staged(tx, &rows()).await? {
        Ok(Outcome::Retry { after_ms: RETRY_AFTER_MS })
    } else {
        Ok(outcome)
    }
}

fn measure((place, upload): (usize, &Upload)) -> Open<'_> {
    let records = validate::measure(&upload.batch);
    let hash = validate::batch_hash(&records);
    Open { place, upload, records, hash }
}

/// Answers what needs no judgement: foreign devices, other histories, batches that were answered before. Returns the rest, and
/// what there is about them.
async fn answer_known<'b>(
    tx: &mut PgConnection,
    mut open: Vec<Open<'b>>,
    decisions: &mut Decisions,
) -> Result<(Vec<Open<'b>>, Recall<'b>), sqlx_core::Error> {
    let clients: BTreeMap<ClientId, &UserId> =
        open.iter().map(|open| (open.upload.batch.client_id, &open.upload.user_id)).collect();
    let owners = known::bind_clients(tx, &clients).await?;
    let recall = Recall::read(tx, &open).await?;
    open.retain(|open| {
        let batch = &open.upload.batch;
        let earlier = recall.answers.get(&(batch.client_id, batch.batch_id)).filter(|(hash, _)| *hash == open.hash);
        let answer = if owners[&batch.client_id] != open.upload.user_id.as_str() {
            Some(Outcome::Refused(foreign_client()))
        } else if batch.epoch != recall.epoch {
            Some(Outcome::EpochChanged { current: recall.epoch })
        } else {
            earlier.map(|(_, outcome)| outcome.clone())
        };
        let unanswered = answer.is_none();
        // What was kept before stays kept; nothing else here binds.
        decisions[open.place] = answer.map(|outcome| Decided { outcome, kept: true });
        unanswered
    });
    Ok((open, recall))
}
