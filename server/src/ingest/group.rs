//! One transaction for all uploads that wait together.
//!
//! Place in the journey: after the [`queue`](super::queue). Postgres makes one commit durable in the time in which it
//! makes a hundred durable, and one statement for many rows is one way there and back.
//!
//! # Invariants
//! - Uploads are first taken together, which nearly always goes well. If it does not, all is taken back and begun again:
//!   one that cannot be taken is left out, and then tried alone within a savepoint, after the others: so is one that writes
//!   to an audience which its user may be in only by what an earlier one writes. So nobody is refused for what another sent,
//!   and each answer is what it would be if the uploads had come one by one.
//! - A group that meets a lock which somebody else holds is taken back as a whole, and leaves nothing; the queue tries each
//!   in a transaction of its own.
//! - Whoever is refused leaves nothing: the transaction goes back to the savepoint.
//! - Answers are told after the commit, and those that bind are kept in it.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx_core::transaction::Transaction;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{AudienceKey, Patch};
use synchrotron_core::wire::{Outcome, RejectionKind};

use super::answers::Answers;
use super::fast_path::Fast;
use super::gate;
use super::opening::Opening;
use super::pass::{Candidate, Pass, PassError, Passed};
use super::validate::{self, Measured};
use super::{Ingest, RETRY_AFTER_MS, Upload, foreign_client};
use crate::capture::is_staged;
use crate::materialize::Pace;
use crate::outbox::Fresh;
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
    /// Whether it leaves images of its rows, whatever its records' numbers.
    pub(super) leaves_images: bool,
}

impl Open<'_> {
    /// The audiences that its records have rows in.
    pub(super) fn touched(&self) -> BTreeSet<&AudienceKey> {
        self.records.iter().flat_map(|record| record.audiences.iter().copied()).collect()
    }
}

/// What is decided of a group, by place, and the slices that it leaves.
#[derive(Debug)]
struct Decisions {
    outcomes: Vec<Option<Outcome>>,
    slices: Fresh,
}

impl Decisions {
    fn note(&mut self, candidates: &[Candidate<'_>], Passed { outcomes, slices }: Passed) {
        for (candidate, outcome) in candidates.iter().zip(outcomes) {
            self.outcomes[candidate.open.place] = Some(outcome);
        }
        self.slices.extend(slices);
    }
}

/// A transaction in which uploads are open, and what is decided of them already.
struct Begun<'g, 'b> {
    tx: Transaction<'static, Postgres>,
    opening: Opening,
    /// Those that are not answered yet.
    open: Vec<&'g Open<'b>>,
    decisions: Decisions,
}

/// How uploads are taken that did not go together: as many as possible at once.
#[derive(Debug)]
struct Sorting<'g> {
    together: Vec<Candidate<'g>>,
    alone: Vec<Candidate<'g>>,
    pace: Pace,
}

impl Sorting<'_> {
    /// Learns from a pass that failed; the next one is another.
    fn learn(&mut self, failed: PassError) {
        match failed {
            PassError::TooFast => self.pace = Pace::Runs,
            PassError::Refused { place, .. } if self.alone.len() < LEFT_OUT_MAX => {
                self.alone.extend(self.together.extract_if(.., |candidate| candidate.open.place == place));
            }
            PassError::Refused { .. } | PassError::Clash(_) => self.alone.append(&mut self.together),
        }
    }
}

impl Ingest {
    /// Decides the fates of uploads of different devices in one transaction, which waits for no lock longer than this; of one
    /// that is alone, on the fast path if it can. The slices that it leaves are in the outbox, too.
    pub(super) async fn commit(
        &self,
        uploads: &[&Upload],
        lock_within: Duration,
    ) -> Result<(Vec<Outcome>, Fresh), sqlx_core::Error> {
        let mut all: Vec<Open<'_>> = uploads.iter().copied().enumerate().map(measure).collect();
        if let [alone] = all.as_mut_slice() {
            match self.take_fast(alone, lock_within).await? {
                Fast::Done(outcome, slices) => return Ok((vec![outcome], slices)),
                Fast::ForGroup { leaves_images } => alone.leaves_images = leaves_images,
            }
        }
        let mut begun = self.begin(&all, lock_within).await?;
        if !begun.open.is_empty() {
            let Begun { tx, opening, open, decisions } = &mut begun;
            let candidates: Vec<Candidate<'_>> = open.iter().map(|open| Candidate::new(open, opening)).collect();
            let pass = Pass { ingest: self, opening, candidates: &candidates, pace: pace_of(candidates.len()) };
            match pass.run(tx).await {
                Ok(passed) => decisions.note(&candidates, passed),
                Err(error) => {
                    let failed = error.undoable()?;
                    begun.tx.rollback().await?;
                    begun = self.begin(&all, lock_within).await?;
                    self.sort_out(&mut begun, lock_within, failed).await?;
                }
            }
        }
        finish(begun, &all).await
    }

    /// Opens uploads, and answers what needs no judgement: foreign devices, other histories, batches that were answered
    /// before.
    async fn begin<'g, 'b>(
        &self,
        all: &'g [Open<'b>],
        lock_within: Duration,
    ) -> Result<Begun<'g, 'b>, sqlx_core::Error> {
        let mut tx = self.pool.begin().await?;
        let mut open: Vec<&Open<'_>> = all.iter().collect();
        let opening = Opening::read(&mut tx, self.settings.head_gate, &open, lock_within).await?;
        let mut decisions = Decisions { outcomes: vec![None; all.len()], slices: Fresh::new() };
        open.retain(|open| {
            decisions.outcomes[open.place] = answer_of(open, &opening);
            decisions.outcomes[open.place].is_none()
        });
        Ok(Begun { tx, opening, open, decisions })
    }

    /// Takes uploads together, as far as that goes, and the rest one by one.
    async fn sort_out(
        &self,
        Begun { tx, opening, open, decisions }: &mut Begun<'_, '_>,
        lock_within: Duration,
        failed: PassError,
    ) -> Result<(), sqlx_core::Error> {
        let together: Vec<Candidate<'_>> = open.iter().map(|open| Candidate::new(open, opening)).collect();
        let mut sorting = Sorting { pace: pace_of(together.len()), together, alone: Vec::new() };
        sorting.learn(failed);
        while !sorting.together.is_empty() {
            let pass = Pass { ingest: self, opening, candidates: &sorting.together, pace: sorting.pace };
            match self.attempt(tx, &pass).await? {
                Ok(passed) => {
                    decisions.note(&sorting.together, passed);
                    sorting.together.clear();
                }
                Err(failed) => sorting.learn(failed),
            }
        }
        sorting.alone.sort_by_key(|candidate| candidate.open.place);
        for Candidate { open, .. } in sorting.alone {
            act_as_server(tx).await?;
            // Those before it may have brought the same records, and have moved the heads.
            let opening = Opening::read(tx, self.settings.head_gate, &[open], lock_within).await?;
            let candidates = [Candidate::new(open, &opening)];
            let pass = Pass { ingest: self, opening: &opening, candidates: &candidates, pace: Pace::OneByOne };
            match self.attempt(tx, &pass).await? {
                Ok(passed) => decisions.note(&candidates, passed),
                Err(PassError::Refused { outcome, .. }) => {
                    decisions.outcomes[open.place] = Some(unless_written(tx, open, *outcome).await?);
                }
                Err(PassError::Clash(error)) => return Err(error),
                Err(PassError::TooFast) => unreachable!("BUG: effects that are applied one by one need no slower pace"),
            }
        }
        Ok(())
    }

    /// One pass, of which nothing stays if it fails.
    async fn attempt(
        &self,
        tx: &mut PgConnection,
        pass: &Pass<'_, '_>,
    ) -> Result<Result<Passed, PassError>, sqlx_core::Error> {
        query("/* ingest.begin */ SAVEPOINT pass").execute(&mut *tx).await?;
        let done = match pass.run(tx).await {
            Ok(passed) => return Ok(Ok(passed)),
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
    Open { place, upload, records, hash, leaves_images: false }
}

/// What an upload is told without being judged, if it is.
fn answer_of(open: &Open<'_>, opening: &Opening) -> Option<Outcome> {
    let batch = &open.upload.batch;
    if opening.owners[&batch.client_id] != open.upload.user_id.as_str() {
        return Some(Outcome::Refused(foreign_client()));
    }
    if batch.epoch != opening.epoch {
        return Some(Outcome::EpochChanged { current: opening.epoch });
    }
    let (hash, outcome) = opening.answers.get(&open.place)?;
    (*hash == open.hash).then(|| outcome.clone())
}

/// How fast so many uploads are tried.
const fn pace_of(uploads: usize) -> Pace {
    if uploads < SCRIPTED_MIN { Pace::Hopeful } else { Pace::Scripts }
}

/// Keeps the answers that bind and that the log does not tell, leaves no head of an audience that nobody has founded, and
/// commits.
async fn finish(
    Begun { mut tx, opening, decisions: Decisions { outcomes, slices }, .. }: Begun<'_, '_>,
    all: &[Open<'_>],
) -> Result<(Vec<Outcome>, Fresh), sqlx_core::Error> {
    let decided = outcomes.into_iter().map(|outcome| outcome.expect("BUG: every upload is answered"));
    let outcomes: Vec<Outcome> = decided.collect();
    let mut answers = Answers::default();
    let mut unfounded: BTreeSet<&AudienceKey> = BTreeSet::new();
    for (open, outcome) in all.iter().zip(&outcomes) {
        if matches!(outcome, Outcome::Rejected { .. }) {
            answers.add(open.upload, &open.hash, outcome);
        }
        if !matches!(outcome, Outcome::Accepted { .. }) {
            unfounded.extend(open.touched().into_iter().filter(|key| opening.heads.head(key) == 0));
        }
    }
    if !answers.is_empty() || !unfounded.is_empty() {
        act_as_server(&mut tx).await?;
    }
    if !answers.is_empty() {
        answers.store(&mut tx).await?;
    }
    if !unfounded.is_empty() {
        gate::forget(&mut tx, &unfounded).await?;
    }
    tx.commit().await?;
    Ok((outcomes, slices))
}
