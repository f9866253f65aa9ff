//! The fast path: an upload that comes alone, and with which all is as it mostly is, in one statement.
//!
//! Place in the journey: before a [`group`](super::group)'s transaction, and mostly instead of it. A device that is online sends
//! one action at a time; its upload would go to Postgres and back six times, four of them under locks. See
//! `migrations/0015_fast_path.sql`.
//!
//! # Invariants
//! - It takes nothing that a group would not take, and leaves the same. Whatever is to be judged, folded, amended, refused or
//!   blamed is left to a group's transaction, which begins afresh.
//! - What it does not take leaves nothing but numbers that nobody gets. One may have been due to leave images: the group, which
//!   draws another, is told so.

use std::time::Duration;

use sqlx_core::query::Query;
use sqlx_core::row::Row;
use sqlx_postgres::{PgArguments, Postgres};
use synchrotron_core::model::{RecordBody, ServerIngestId};
use synchrotron_core::wire::Outcome;

use super::age::Places;
use super::append::{Appended, Waiting, waiting_of};
use super::fresh;
use super::group::Open;
use super::known::Known;
use super::new_rows::{Author, NewRows};
use super::opening::basis_of;
use super::validate::Measured;
use super::{Ingest, Upload};
use crate::materialize::WholeScript;
use crate::outbox::Fresh;
use crate::pg::{composites, query, words};
use crate::settings::HeadGate;

/// What became of an upload.
#[derive(Debug)]
pub(super) enum Fast {
    /// It is answered; the slices that it leaves.
    Done(Outcome, Fresh),
    /// It is for a group's transaction.
    ForGroup {
        /// Whether it is to leave images of the rows that it touches: it had a number of those that do.
        leaves_images: bool,
    },
}

const FOR_GROUP: Fast = Fast::ForGroup { leaves_images: false };

impl Ingest {
    /// Takes an upload, or finds that it is for a group's transaction.
    pub(super) async fn take_fast(&self, open: &Open<'_>, lock_within: Duration) -> Result<Fast, sqlx_core::Error> {
        let new: Vec<&Measured<'_>> = open.records.iter().collect();
        if !is_plain(&new) || self.check(&new).is_err() {
            return Ok(FOR_GROUP);
        }
        let uploads: Vec<_> = new.iter().map(|record| record.upload).collect();
        let Some(script) = WholeScript::of(&self.catalogue, &open.upload.user_id, &uploads) else {
            return Ok(FOR_GROUP);
        };
        let author = Author { client_id: open.upload.batch.client_id, user_id: &open.upload.user_id };
        let records: Vec<_> = new.iter().map(|record| (author, *record)).collect();
        let mut conn = self.pool.acquire().await?;
        let found = match self.taking(open, &records, &script, lock_within).fetch_all(&mut *conn).await {
            Ok(found) => found,
            Err(error) if is_of_the_upload(&error) => {
                tracing::debug!(error = words(&error), "ingest.for_group");
                return Ok(FOR_GROUP);
            }
            Err(error) => return Err(error),
        };
        drop(conn);
        let Some((first, slices)) = found.split_first() else { return Ok(FOR_GROUP) };
        if first.try_get::<&str, _>("said")? == "images" {
            return Ok(Fast::ForGroup { leaves_images: true });
        }
        let waiting = slices.iter().map(waiting_of).collect::<Result<_, _>>()?;
        Ok(self.accepted(open, &records, first.try_get::<Vec<i64>, _>("numbers")?.as_slice(), waiting))
    }

    fn taking(
        &self,
        open: &Open<'_>,
        records: &[(Author<'_>, &Measured<'_>)],
        script: &WholeScript<'_>,
        lock_within: Duration,
    ) -> Query<'static, Postgres, PgArguments> {
        let Upload { user_id, batch } = open.upload;
        let gate = self.settings.head_gate;
        let touched = open.touched();
        let Places { audiences, rows, uploads, amended: _ } = Places::of(&[open], &Known::default());
        let begun = (1_i64..).zip(rows.keys()).filter(|(_, (_, row))| script.begun.contains(row));
        let taking = query(TAKE)
            .bind(lock_within.as_millis().to_string())
            .bind(user_id.as_str().to_owned())
            .bind(*batch.client_id.as_uuid())
            .bind(*batch.batch_id.as_uuid())
            .bind(*batch.epoch.as_uuid())
            .bind(gate == HeadGate::Visible)
            .bind(basis_of(gate, open))
            .bind(records.iter().map(|(_, record)| *record.upload.id.as_uuid()).collect::<Vec<_>>())
            .bind(uploads.values().map(|least| least.clock.packed()).min())
            .bind(touched.iter().map(|key| key.as_str()).collect::<Vec<_>>())
            .bind(composites(&audiences))
            .bind(composites(&rows))
            .bind(begun.map(|(place, _)| place).collect::<Vec<_>>());
        script.bind(NewRows::of(records).bind(taking).bind(self.settings.app_role.clone()))
    }

    fn accepted<'b>(
        &self,
        open: &Open<'_>,
        records: &[(Author<'b>, &'b Measured<'b>)],
        numbers: &[i64],
        waiting: Vec<Waiting>,
    ) -> Fast {
        let numbered = records.iter().zip(numbers);
        let ids = numbered.map(|((_, record), number)| (record.upload.id, ServerIngestId::new(*number))).collect();
        let slices = if self.announcer.is_heard() {
            fresh::slices(open.upload.batch.epoch, records, &Appended::of(records, numbers, waiting))
        } else {
            Fresh::new()
        };
        Fast::Done(Outcome::Accepted { ids }, slices)
    }
}

/// Whether there are records, and they are actions, each after the one before it.
fn is_plain(records: &[&Measured<'_>]) -> bool {
    !records.is_empty()
        && records.iter().all(|record| matches!(record.upload.body, RecordBody::Action { .. }))
        && records.is_sorted_by(|one, next| one.position < next.position)
}

/// Whether what failed may be of what was uploaded, and not of a lock, of Postgres itself or of the way there.
fn is_of_the_upload(error: &sqlx_core::Error) -> bool {
    let sqlx_core::Error::Database(error) = error else { return false };
    // lock_not_available; transaction rollback, connection exception, insufficient resources, operator intervention
    error.code().is_some_and(|code| code != "55P03" && !["40", "08", "53", "57"].contains(&code.get(..2).unwrap_or("")))
}

/// See the function.
pub(crate) const TAKE: &str = "/* ingest.take */ SELECT said, numbers, id, audience_key, prev, through \
    FROM synchrotron.take_upload($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
    $20, $21, $22, $23, $24, $25, $26, $27)";
