//! One pass over uploads: judge each, write all that are admitted, and number them.
//!
//! Place in the journey: within a [`group`](super::group)'s transaction, beneath its savepoint. It answers what can be
//! answered without writing, and fails as a whole when one of the rest turns out to be refused.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_postgres::PgConnection;
use synchrotron_core::model::{ActionId, AudienceKey, ServerIngestId};
use synchrotron_core::wire::{Outcome, RejectionKind};

use super::age;
use super::append;
use super::fresh;
use super::gate::{Gate, LockedHeads};
use super::group::Open;
use super::known;
use super::new_rows::Author;
use super::opening::Opening;
use super::validate::{self, Measured};
use super::{Ingest, Rejection};
use crate::audiences::audiences_of;
use crate::clock::now_ms;
use crate::materialize::{MaterializeError, Materializer, Pace, Refused};
use crate::outbox::Fresh;
use crate::pg::Actor;
use crate::settings::HeadGate;

/// An upload that may be taken.
#[derive(Debug)]
pub(super) struct Candidate<'g> {
    pub(super) open: &'g Open<'g>,
    /// The uploader's audiences.
    visible: &'g BTreeSet<AudienceKey>,
    /// The audiences that its records have rows in.
    touched: BTreeSet<&'g AudienceKey>,
}

impl<'g> Candidate<'g> {
    pub(super) fn new(open: &'g Open<'g>, opening: &'g Opening) -> Self {
        Self { open, visible: &opening.audiences[&open.place], touched: open.touched() }
    }

    /// The audiences of which its device must have seen everything.
    pub(super) fn covered(&self, mode: HeadGate) -> impl Iterator<Item = &'g AudienceKey> {
        self.visible.iter().filter(move |key| match mode {
            HeadGate::Visible => true,
            HeadGate::Touched => self.touched.contains(key),
        })
    }
}

/// What is written of an upload.
struct Admitted<'g> {
    /// Its place in the pass.
    place: usize,
    candidate: &'g Candidate<'g>,
    /// Those of its records that are new.
    new: Vec<&'g Measured<'g>>,
    /// The numbers of the others.
    ids: BTreeMap<ActionId, ServerIngestId>,
    /// Audiences that it founds, each with the first record that writes to it.
    founded: BTreeMap<&'g AudienceKey, ActionId>,
}

/// What a pass did.
#[derive(Debug)]
pub(super) struct Passed {
    /// What is decided of each upload.
    pub(super) outcomes: Vec<Outcome>,
    /// The slices that it leaves in the outbox.
    pub(super) slices: Fresh,
}

/// Why a pass has to be taken back.
#[derive(Debug)]
pub(super) enum PassError {
    /// One upload is refused.
    Refused {
        /// Which, by its place in the group.
        place: usize,
        /// What it is told, if it was tried alone.
        outcome: Box<Outcome>,
    },
    /// Uploads that cannot be together, such as two that use one id; or trouble of the server.
    Clash(sqlx_core::Error),
    /// Something is to be said of one of them that only a slower pace shows.
    TooFast,
}

impl From<sqlx_core::Error> for PassError {
    fn from(error: sqlx_core::Error) -> Self {
        Self::Clash(error)
    }
}

impl PassError {
    /// Itself if another pass can go better in the same transaction, else the trouble.
    pub(super) fn undoable(self) -> Result<Self, sqlx_core::Error> {
        match self {
            Self::Clash(error) if !is_unique_violation(&error) => Err(error),
            undoable => Ok(undoable),
        }
    }
}

fn is_unique_violation(error: &sqlx_core::Error) -> bool {
    matches!(error, sqlx_core::Error::Database(error) if error.is_unique_violation())
}

/// Uploads that are taken together.
#[derive(Debug)]
pub(super) struct Pass<'i, 'g> {
    pub(super) ingest: &'i Ingest,
    /// What there is about them; others may be open beside them.
    pub(super) opening: &'g Opening,
    pub(super) candidates: &'g [Candidate<'g>],
    pub(super) pace: Pace,
}

impl Pass<'_, '_> {
    /// The outcome of each, all written that are accepted. The transaction may act as a user afterwards.
    pub(super) async fn run(&self, tx: &mut PgConnection) -> Result<Passed, PassError> {
        let mut gate = Gate::new(self.opening);
        let mut decided: Vec<Option<Outcome>> = vec![None; self.candidates.len()];
        let mut admitted = Vec::new();
        for (place, candidate) in self.candidates.iter().enumerate() {
            match self.admit(tx, place, candidate, &gate).await? {
                Ok(one) => {
                    let audiences = one.new.iter().flat_map(|record| record.audiences.iter().copied());
                    gate.pass(candidate.open.upload.batch.client_id, audiences);
                    admitted.push(one);
                }
                Err(outcome) => decided[place] = Some(outcome),
            }
        }
        let (accepted, slices) = self.write(tx, &admitted).await?;
        for (place, outcome) in accepted {
            decided[place] = Some(outcome);
        }
        let outcomes = decided.into_iter().map(|decided| decided.expect("BUG: admitted or answered")).collect();
        Ok(Passed { outcomes, slices })
    }

    /// Judges an upload by everything that can be known before it is written.
    async fn admit<'g>(
        &self,
        tx: &mut PgConnection,
        place: usize,
        candidate: &'g Candidate<'g>,
        gate: &Gate<'_>,
    ) -> Result<Result<Admitted<'g>, Outcome>, PassError> {
        let Open { upload, records, .. } = candidate.open;
        let ids = match self.opening.known.of(records) {
            Ok(ids) if ids.len() == records.len() => return Ok(Err(Outcome::Accepted { ids })),
            Ok(ids) => ids,
            Err(rejection) => return Ok(Err(rejection.into())),
        };
        let new: Vec<&Measured<'_>> = records.iter().filter(|r| !ids.contains_key(&r.upload.id)).collect();
        let judged = self.ingest.check(&new).and_then(|()| {
            age::admit(self.opening, candidate.open.place)?;
            gate.admit(self.ingest.settings.head_gate, candidate)?;
            Ok(founded_audiences(&new, candidate.visible, &self.opening.heads)?)
        });
        let founded = match judged {
            Ok(founded) => founded,
            Err(outcome) => return Ok(Err(outcome)),
        };
        if let Some((audience_key, action)) = founded.iter().find(|(key, _)| gate.is_written(key)) {
            // The one before may found it, and for this user, too: that shows when it is written.
            let outcome = Box::new(foreign_audience(*action, audience_key).into());
            return Err(PassError::Refused { place: candidate.open.place, outcome });
        }
        if let Err(rejection) = known::check_amended(tx, &new, &upload.user_id, candidate.visible).await? {
            return Ok(Err(rejection.into()));
        }
        Ok(Ok(Admitted { place, candidate, new, ids, founded }))
    }

    /// Appends and materializes all that is admitted; the outcomes, by place.
    async fn write(
        &self,
        tx: &mut PgConnection,
        admitted: &[Admitted<'_>],
    ) -> Result<(Vec<(usize, Outcome)>, Fresh), PassError> {
        let Some(first) = admitted.first() else { return Ok((Vec::new(), Fresh::new())) };
        let Opening { heads, epoch, .. } = self.opening;
        let all: Vec<(Author<'_>, &Measured<'_>)> = admitted
            .iter()
            .flat_map(|one| {
                let upload = one.candidate.open.upload;
                let author = Author { client_id: upload.batch.client_id, user_id: &upload.user_id };
                one.new.iter().map(move |record| (author, *record))
            })
            .collect();
        let outcomes = accepted(admitted, heads.numbers(all.len()));
        let appended = append::append(tx, &all, heads).await?;
        let last_number = appended.numbered.last().map_or(0, |record| record.number);
        let app_role = &self.ingest.settings.app_role;
        let actor = Actor::introduce(tx, &first.candidate.open.upload.user_id, app_role);
        let catalogue = &self.ingest.catalogue;
        let newest = self.opening.newest.clone();
        let mut materializer = Materializer::new(actor, catalogue, newest, last_number, self.pace);
        materializer.begin(appended.numbered.iter().copied()).await?;
        let mut rest = appended.numbered.as_slice();
        for one in admitted {
            let (records, others) = rest.split_at(one.new.len());
            rest = others;
            let Open { upload, leaves_images, .. } = one.candidate.open;
            let refused = |error| refused(one.candidate, error);
            materializer.upload(&upload.user_id, records, *leaves_images).await.map_err(refused)?;
            if !one.founded.is_empty() {
                materializer.flush().await.map_err(refused)?;
                check_founded(materializer.as_server().await?, one).await?;
            }
        }
        // Only a script is left, which blames nobody.
        materializer.flush().await.map_err(|error| refused(first.candidate, error))?;
        materializer.end().await?;
        let heard = self.ingest.announcer.is_heard();
        Ok((outcomes, if heard { fresh::slices(*epoch, &all, &appended) } else { Fresh::new() }))
    }
}

impl Ingest {
    /// Checks records by everything that can be known without looking at any row.
    pub(super) fn check(&self, new: &[&Measured<'_>]) -> Result<(), Outcome> {
        let mut seen = BTreeSet::new();
        for record in new {
            if !seen.insert(record.upload.id) {
                let reason = "the id comes twice in the batch".to_owned();
                return Err(Rejection { action: record.upload.id, kind: RejectionKind::DuplicateId, reason }.into());
            }
            validate::check_record(record, &self.settings, &self.catalogue)?;
        }
        validate::check_clocks(new, &self.settings, now_ms())
    }
}

/// What those whose records get these numbers are told, if all goes well.
fn accepted(admitted: &[Admitted<'_>], numbers: &[i64]) -> Vec<(usize, Outcome)> {
    let mut numbers = numbers.iter().copied().map(ServerIngestId::new);
    let outcome = |one: &Admitted<'_>| {
        let new = one.new.iter().map(|record| record.upload.id).zip(numbers.by_ref());
        (one.place, Outcome::Accepted { ids: one.ids.clone().into_iter().chain(new).collect() })
    };
    admitted.iter().map(outcome).collect()
}

fn refused(candidate: &Candidate<'_>, Refused { action, error }: Refused) -> PassError {
    match error {
        MaterializeError::Database(error) => PassError::Clash(error),
        MaterializeError::TooFast => PassError::TooFast,
        MaterializeError::Refused(complaint) => {
            let rejection = Rejection { action, kind: complaint.kind, reason: complaint.reason };
            PassError::Refused { place: candidate.open.place, outcome: Box::new(rejection.into()) }
        }
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
) -> Result<BTreeMap<&'b AudienceKey, ActionId>, Rejection> {
    let mut founded = BTreeMap::new();
    for record in new {
        for patch in record.upload.rows.iter().filter(|patch| !visible.contains(&patch.audience_key)) {
            if heads.head(&patch.audience_key) > 0 {
                return Err(foreign_audience(record.upload.id, &patch.audience_key));
            }
            founded.entry(&patch.audience_key).or_insert(record.upload.id);
        }
    }
    Ok(founded)
}

async fn check_founded(conn: &mut PgConnection, one: &Admitted<'_>) -> Result<(), PassError> {
    let audiences = audiences_of(conn, &one.candidate.open.upload.user_id).await?;
    match one.founded.iter().find(|(audience_key, _)| !audiences.contains(**audience_key)) {
        Some((audience_key, action)) => {
            let outcome = foreign_audience(*action, audience_key).into();
            Err(PassError::Refused { place: one.candidate.open.place, outcome: Box::new(outcome) })
        }
        None => Ok(()),
    }
}

fn foreign_audience(action: ActionId, audience_key: &AudienceKey) -> Rejection {
    let reason = format!("the user is not in audience {audience_key}");
    Rejection { action, kind: RejectionKind::Denied, reason }
}
