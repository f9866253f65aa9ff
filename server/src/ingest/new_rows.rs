//! What records leave in the log, as rows of the types that [`append`](super::append) takes. The order of fields is that of
//! `migrations/0014_new_rows.sql`. Records are named by their places among those that are added together, from 1: their
//! numbers are drawn under locks, and are not known yet.

use std::collections::BTreeMap;

use sqlx_core::error::BoxDynError;
use sqlx_core::query::Query;
use sqlx_postgres::types::PgRecordEncoder;
use sqlx_postgres::{PgArguments, Postgres};
use synchrotron_core::model::{AudienceKey, ClientId, Patch, RecordBody, ReplayKey, UserId};

use super::validate::Measured;
use crate::pg::{Composite, composites, encode_columns, encode_position, encode_slices};

/// Whose upload it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    /// The device.
    pub(crate) client_id: ClientId,
    /// The user that the connection proved.
    pub(crate) user_id: &'a UserId,
}

/// A record.
#[derive(Debug)]
struct NewRecord<'b> {
    author: Author<'b>,
    record: &'b Measured<'b>,
    place: i32,
}

/// All that records leave there.
#[derive(Debug)]
pub(super) struct NewRows<'b>(Vec<NewRecord<'b>>);

impl<'b> NewRows<'b> {
    /// Of records with their authors.
    pub(super) fn of(records: &[(Author<'b>, &'b Measured<'b>)]) -> Self {
        let new = records.iter().zip(1..).map(|((author, record), place)| NewRecord { author: *author, record, place });
        Self(new.collect())
    }

    /// Binds the four parameters of a statement that adds them.
    pub(super) fn bind<'q>(&self, query: Query<'q, Postgres, PgArguments>) -> Query<'q, Postgres, PgArguments> {
        query
            .bind(composites(&self.0))
            .bind(composites(self.0.iter().flat_map(NewEffect::of)))
            .bind(composites(self.0.iter().flat_map(NewAudience::of)))
            .bind(composites(ReachedHead::of(&self.0)))
    }
}

impl Composite for &NewRecord<'_> {
    const TYPE: &'static str = "synchrotron.new_record";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let NewRecord { author, record, place } = self;
        let Measured { upload, position, .. } = record;
        let (action, amends, reason) = match &upload.body {
            RecordBody::Action { tag, args } => (Some((tag.as_str(), args.as_bytes())), None, None),
            RecordBody::Correction { reason, .. } => (None, Some(*position.action_id.as_uuid()), reason.as_deref()),
        };
        row.encode(*place)?
            .encode(*author.client_id.as_uuid())?
            .encode(author.user_id.as_str())?
            .encode(*upload.id.as_uuid())?
            .encode(action.map(|(tag, _)| tag))?
            .encode(action.map(|(_, args)| args))?
            .encode(upload.clock.packed())?
            .encode(integer(upload.rows.len()))?
            .encode(amends)?
            .encode(reason)?;
        encode_position(row, position)?;
        row.encode(encode_slices(&record.slice_tags()))?
            .encode(record.content_hash.as_slice())?
            .encode(integer(record.byte_count))?
            .encode(upload.trace_parent.map(|trace| trace.to_string()))?;
        Ok(())
    }
}

/// One of a record's effects.
#[derive(Debug)]
struct NewEffect<'b> {
    new: &'b NewRecord<'b>,
    patch: &'b Patch,
}

impl<'b> NewEffect<'b> {
    /// All of them.
    fn of(new: &'b NewRecord<'b>) -> impl Iterator<Item = Self> {
        new.record.upload.rows.iter().map(move |patch| Self { new, patch })
    }
}

impl Composite for NewEffect<'_> {
    const TYPE: &'static str = "synchrotron.new_effect";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let Self { new: NewRecord { record, place, .. }, patch } = self;
        row.encode(*place)?
            .encode(*record.upload.id.as_uuid())?
            .encode(integer(patch.sequence))?
            .encode(patch.table.as_str())?
            .encode(patch.row_id.as_str())?
            .encode(patch.audience_key.as_str())?
            .encode(patch.effect.operation().as_str())?
            .encode(patch.effect.columns().map_or_else(|| vec![0x80], encode_columns))?;
        encode_position(row, &record.position)
    }
}

/// That a record has rows in an audience.
#[derive(Debug)]
struct NewAudience<'b> {
    new: &'b NewRecord<'b>,
    audience_key: &'b AudienceKey,
}

impl<'b> NewAudience<'b> {
    /// Each of its audiences.
    fn of(new: &'b NewRecord<'b>) -> impl Iterator<Item = Self> {
        new.record.audiences.iter().map(move |audience_key| Self { new, audience_key })
    }
}

impl Composite for NewAudience<'_> {
    const TYPE: &'static str = "synchrotron.new_audience";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let NewRecord { author, record, place } = self.new;
        row.encode(*place)?
            .encode(*author.client_id.as_uuid())?
            .encode(self.audience_key.as_str())?
            .encode(*record.upload.id.as_uuid())?;
        Ok(())
    }
}

/// How far an audience's log goes with these records.
#[derive(Debug)]
struct ReachedHead<'b> {
    audience_key: &'b AudienceKey,
    last: i32,
    greatest: ReplayKey,
}

impl<'b> ReachedHead<'b> {
    /// Of each audience that these records are in.
    fn of(records: &'b [NewRecord<'b>]) -> Vec<Self> {
        let mut reached: BTreeMap<&AudienceKey, Self> = BTreeMap::new();
        for NewRecord { record, place, .. } in records {
            for audience_key in record.audiences.iter().copied() {
                let first = || Self { audience_key, last: *place, greatest: record.position };
                let head = reached.entry(audience_key).or_insert_with(first);
                head.last = *place;
                head.greatest = record.position.max(head.greatest);
            }
        }
        reached.into_values().collect()
    }
}

impl Composite for ReachedHead<'_> {
    const TYPE: &'static str = "synchrotron.reached_head";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        row.encode(self.last)?.encode(self.audience_key.as_str())?;
        encode_position(row, &self.greatest)
    }
}

fn integer(value: impl TryInto<i32, Error: std::fmt::Debug>) -> i32 {
    value.try_into().expect("BUG: a record is bounded in bytes")
}
