//! Refuses what would take its place beneath something that is compacted away: it could not be folded in any more.
//!
//! Place in the journey: under the heads' locks, which compaction takes too, before the gate.
//!
//! # Invariants
//! - Nothing is taken at or beneath the compacted position of an audience that it touches, or beneath the image of a row
//!   that it touches: what is left of these is final.
//! - A correction of an action that is gone is too old, wherever its own rows are.
//! - Nothing is taken beneath the clock whose ids are forgotten: whether it was done is not known any more.

use std::collections::BTreeMap;

use sqlx_core::error::BoxDynError;
use sqlx_postgres::types::PgRecordEncoder;
use synchrotron_core::model::{AudienceKey, RecordBody, ReplayKey, RowKey};
use synchrotron_core::wire::Outcome;
use uuid::Uuid;

use super::group::Open;
use super::known::Known;
use super::opening::Opening;
use super::validate::Measured;
use crate::pg::{Composite, encode_position};

/// The least position at which uploads touch a thing; they are named by their places.
type Least<T> = BTreeMap<(i64, T), ReplayKey>;

/// An upload's least position in an audience.
impl Composite for (&(i64, &AudienceKey), &ReplayKey) {
    const TYPE: &'static str = "synchrotron.place_in_audience";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let ((place, audience_key), least) = self;
        row.encode(*place)?.encode(audience_key.as_str())?;
        encode_position(row, least)
    }
}

/// An upload's least position on a row.
impl Composite for (&(i64, RowKey), &ReplayKey) {
    const TYPE: &'static str = "synchrotron.place_on_row";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let ((place, RowKey { table, row_id }), least) = self;
        row.encode(*place)?.encode(table.as_str())?.encode(row_id.as_str())?;
        encode_position(row, least)
    }
}

/// Where what is new in uploads takes its place.
#[derive(Debug, Default)]
pub(super) struct Places<'c> {
    /// In their audiences.
    pub(super) audiences: Least<&'c AudienceKey>,
    /// On their rows.
    pub(super) rows: Least<RowKey>,
    /// At all.
    pub(super) uploads: Least<()>,
    /// The actions that they amend.
    pub(super) amended: Vec<(i64, Uuid)>,
}

impl<'c> Places<'c> {
    /// Of everything in these uploads that is not known.
    pub(super) fn of(uploads: &[&'c Open<'c>], known: &Known) -> Self {
        let mut places = Self::default();
        for (place, open) in (0..).zip(uploads) {
            let new = |record: &&Measured<'_>| !known.contains(record.upload.id);
            for Measured { upload, position, .. } in open.records.iter().filter(new) {
                keep_least(&mut places.uploads, (place, ()), *position);
                for patch in &upload.rows {
                    keep_least(&mut places.audiences, (place, &patch.audience_key), *position);
                    keep_least(&mut places.rows, (place, patch.row_key()), *position);
                }
                if matches!(upload.body, RecordBody::Correction { .. }) {
                    places.amended.push((place, *position.action_id.as_uuid()));
                }
            }
        }
        places
    }
}

fn keep_least<T: Ord>(least: &mut Least<T>, thing: (i64, T), position: ReplayKey) {
    let kept = least.entry(thing).or_insert(position);
    *kept = position.min(*kept);
}

/// Refuses an upload of which something is too old.
pub(super) fn admit(opening: &Opening, place: usize) -> Result<(), Outcome> {
    match opening.ages.get(&place) {
        Some(floor) => Err(Outcome::TooOld { oldest_ms: floor.millis() + 1 }),
        None => Ok(()),
    }
}
