//! What records leave in the log, as rows of the types that [`append`](super::append) takes. The order of fields is that of
//! `migrations/0014_new_rows.sql`.

use std::collections::BTreeMap;

use sqlx_core::error::BoxDynError;
use sqlx_postgres::types::PgRecordEncoder;
use synchrotron_core::model::{AudienceKey, ClientId, Patch, RecordBody, ReplayKey, UserId};

use super::gate::LockedHeads;
use super::validate::Measured;
use crate::materialize::Numbered;
use crate::pg::{Composite, encode_columns, encode_position, encode_slices};

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
pub(super) struct NewRecord<'b> {
    pub(super) author: Author<'b>,
    pub(super) record: &'b Measured<'b>,
    pub(super) number: i64,
}

impl<'b> NewRecord<'b> {
    /// What is materialized of it.
    pub(super) const fn numbered(&self) -> Numbered<'b> {
        Numbered { upload: self.record.upload, position: self.record.position, number: self.number }
    }
}

impl Composite for &NewRecord<'_> {
    const TYPE: &'static str = "synchrotron.new_record";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let NewRecord { author, record, number } = self;
        let Measured { upload, position, .. } = record;
        let (action, amends, reason) = match &upload.body {
            RecordBody::Action { tag, args } => (Some((tag.as_str(), args.as_bytes())), None, None),
            RecordBody::Correction { reason, .. } => (None, Some(*position.action_id.as_uuid()), reason.as_deref()),
        };
        row.encode(*author.client_id.as_uuid())?
            .encode(author.user_id.as_str())?
            .encode(*upload.id.as_uuid())?
            .encode(*number)?
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
pub(super) struct NewEffect<'b> {
    record: Numbered<'b>,
    patch: &'b Patch,
}

impl<'b> NewEffect<'b> {
    /// All of them.
    pub(super) fn of(record: &Numbered<'b>) -> impl Iterator<Item = Self> + use<'b> {
        let record = *record;
        record.upload.rows.iter().map(move |patch| Self { record, patch })
    }
}

impl Composite for NewEffect<'_> {
    const TYPE: &'static str = "synchrotron.new_effect";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let Self { record, patch } = self;
        row.encode(*record.upload.id.as_uuid())?
            .encode(integer(patch.sequence))?
            .encode(patch.table.as_str())?
            .encode(patch.row_id.as_str())?
            .encode(patch.audience_key.as_str())?
            .encode(patch.effect.operation().as_str())?
            .encode(patch.effect.columns().map_or_else(|| vec![0x80], encode_columns))?
            .encode(record.number)?;
        encode_position(row, &record.position)
    }
}

/// That a record has rows in an audience.
#[derive(Debug)]
pub(super) struct NewAudience<'b> {
    new: &'b NewRecord<'b>,
    audience_key: &'b AudienceKey,
}

impl<'b> NewAudience<'b> {
    /// Each of its audiences.
    pub(super) fn of(new: &'b NewRecord<'b>) -> impl Iterator<Item = Self> {
        new.record.audiences.iter().map(move |audience_key| Self { new, audience_key })
    }
}

impl Composite for NewAudience<'_> {
    const TYPE: &'static str = "synchrotron.new_audience";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        let NewRecord { author, record, number } = self.new;
        row.encode(*author.client_id.as_uuid())?
            .encode(self.audience_key.as_str())?
            .encode(*number)?
            .encode(*record.upload.id.as_uuid())?;
        Ok(())
    }
}

/// How far an audience's log goes with these records.
#[derive(Debug)]
pub(super) struct ReachedHead<'b> {
    audience_key: &'b AudienceKey,
    prev: i64,
    through: i64,
    greatest: ReplayKey,
}

impl<'b> ReachedHead<'b> {
    /// Of each audience that these records are in: heads go up to the last number, floors to the greatest position.
    pub(super) fn of(records: &'b [NewRecord<'b>], heads: &LockedHeads) -> Vec<Self> {
        let mut reached: BTreeMap<&AudienceKey, Self> = BTreeMap::new();
        for new in records {
            let position = new.record.position;
            for audience_key in new.record.audiences.iter().copied() {
                let first =
                    || Self { audience_key, prev: heads.head(audience_key), through: new.number, greatest: position };
                let head = reached.entry(audience_key).or_insert_with(first);
                head.through = new.number;
                head.greatest = position.max(head.greatest);
            }
        }
        reached.into_values().collect()
    }
}

impl Composite for ReachedHead<'_> {
    const TYPE: &'static str = "synchrotron.reached_head";

    fn fields(&self, row: &mut PgRecordEncoder<'_>) -> Result<(), BoxDynError> {
        row.encode(self.audience_key.as_str())?.encode(self.prev)?.encode(self.through)?;
        encode_position(row, &self.greatest)
    }
}

fn integer(value: impl TryInto<i32, Error: std::fmt::Debug>) -> i32 {
    value.try_into().expect("BUG: a record is bounded in bytes")
}
