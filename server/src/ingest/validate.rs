//! What can be said about an upload without looking at any row: shape, sizes, tables, columns, clocks.
//!
//! Place in the journey: first hop of ingest. A record that passes may still be refused by policies and constraints;
//! one that fails never reaches them.

use std::collections::BTreeSet;
use std::io;

use sha2::{Digest, Sha256};
use synchrotron_core::model::{AudienceKey, AudienceRow, ClientId, Effect, Patch, RecordBody, ReplayKey, SliceTag};
use synchrotron_core::wire::{Outcome, RejectionKind, UploadBatch, UploadRecord};
use uuid::Uuid;

use super::Rejection;
use crate::materialize::{Catalogue, IdType, KindMismatch, Table, takes};
use crate::settings::Settings;

/// What the tags of the server's own records begin with.
const RESERVED: char = '_';

/// A record with what identifies its content.
#[derive(Debug, Clone)]
pub(super) struct Measured<'b> {
    /// As uploaded.
    pub(super) upload: &'b UploadRecord,
    /// Where it takes effect.
    pub(super) position: ReplayKey,
    /// The audiences that it has rows in, each once, sorted.
    pub(super) audiences: Vec<&'b AudienceKey>,
    /// Equal for equal content. Of a correction, only what it amends and how: equal corrections of several devices are
    /// one record.
    pub(super) content_hash: [u8; 32],
    /// Encoded size in bytes.
    pub(super) byte_count: usize,
}

impl Measured<'_> {
    /// One tag for each of its audiences, sorted.
    pub(super) fn slice_tags(&self) -> Vec<SliceTag> {
        let tag = |audience_key: &&AudienceKey| SliceTag::of(self.upload.id, audience_key);
        let mut tags: Vec<_> = self.audiences.iter().map(tag).collect();
        tags.sort_unstable();
        tags
    }
}

/// Hashes and sizes every record of a batch.
pub(super) fn measure(batch: &UploadBatch) -> Vec<Measured<'_>> {
    batch.records.iter().map(|upload| measure_record(batch.client_id, upload)).collect()
}

pub(super) fn measure_record(client_id: ClientId, upload: &UploadRecord) -> Measured<'_> {
    // The trace is no part of what a record is.
    let UploadRecord { id, clock, body, rows, trace_parent: _ } = upload;
    let own = ReplayKey { clock: *clock, client_id, action_id: *id };
    let (position, identity) = match body {
        RecordBody::Action { .. } => (own, encoded(&(own, body, rows))),
        RecordBody::Correction { amends, .. } => (*amends, encoded(&(amends, rows))),
    };
    let content_hash = Sha256::digest(&identity).into();
    let mut audiences: Vec<&AudienceKey> = rows.iter().map(|patch| &patch.audience_key).collect();
    audiences.sort_unstable();
    audiences.dedup();
    Measured { upload, position, audiences, content_hash, byte_count: encoded_len(upload) }
}

/// One hash of all records' hashes and ids.
pub(super) fn batch_hash(records: &[Measured<'_>]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for record in records {
        hash.update(record.upload.id.as_uuid());
        hash.update(record.content_hash);
    }
    hash.finalize().into()
}

fn encoded<T: serde::Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value).expect("BUG: wire types hold nothing that MessagePack cannot say")
}

fn encoded_len<T: serde::Serialize>(value: &T) -> usize {
    let mut bytes = Count(0);
    rmp_serde::encode::write_named(&mut bytes, value)
        .expect("BUG: wire types hold nothing that MessagePack cannot say");
    bytes.0
}

/// Takes bytes, and keeps how many there were.
struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first record whose clock is further ahead of `now_ms` than is tolerated.
pub(super) fn check_clocks(records: &[&Measured<'_>], settings: &Settings, now_ms: i64) -> Result<(), Outcome> {
    let latest_ms = now_ms.saturating_add(settings.max_clock_ahead_ms);
    if records.iter().any(|record| record.upload.clock.millis() > latest_ms) {
        return Err(Outcome::ClockAhead { server_time_ms: now_ms, max_ahead_ms: settings.max_clock_ahead_ms });
    }
    Ok(())
}

/// Checks one record against the bounds and the catalogue.
pub(super) fn check_record(record: &Measured<'_>, settings: &Settings, catalogue: &Catalogue) -> Result<(), Rejection> {
    let upload = record.upload;
    let reject = |kind, reason: String| Rejection { action: upload.id, kind, reason };
    let malformed = |reason: String| reject(RejectionKind::Malformed, reason);
    if record.byte_count > settings.max_record_bytes {
        let reason = format!("record of {} bytes, at most {} are taken", record.byte_count, settings.max_record_bytes);
        return Err(reject(RejectionKind::TooLarge, reason));
    }
    if upload.clock.packed() < 0 || record.position.clock.packed() < 0 {
        return Err(malformed("clock before 1970".to_owned()));
    }
    let correction = match &upload.body {
        RecordBody::Action { args, .. } if !args.is_map() => {
            return Err(malformed("args are not one MessagePack map".to_owned()));
        }
        RecordBody::Action { tag, .. } if tag.as_str().starts_with(RESERVED) => {
            return Err(malformed(format!("tag {tag} begins with {RESERVED}, as only the server's own tags do")));
        }
        RecordBody::Action { .. } => false,
        RecordBody::Correction { reason, .. } if reason.as_ref().is_some_and(|reason| reason.contains('\0')) => {
            return Err(malformed("reason holds a NUL character".to_owned()));
        }
        RecordBody::Correction { .. } => true,
    };
    let mut rows: BTreeSet<AudienceRow> = BTreeSet::new();
    for (expected, patch) in (0..).zip(&upload.rows) {
        if patch.sequence != expected {
            return Err(malformed(format!("row {expected} has sequence {}", patch.sequence)));
        }
        if patch.effect == Effect::Nothing && !correction {
            return Err(malformed(format!("row {expected} of an action has operation NOTHING")));
        }
        if correction && !rows.insert(patch.audience_row()) {
            return Err(malformed(format!("row {expected} of a correction amends a row that another of it amends")));
        }
        check_patch(patch, catalogue).map_err(|(kind, reason)| reject(kind, reason))?;
    }
    Ok(())
}

fn check_patch(patch: &Patch, catalogue: &Catalogue) -> Result<(), (RejectionKind, String)> {
    let Some(table) = catalogue.table(&patch.table) else {
        return Err((RejectionKind::UnknownTable, format!("table {} is not tracked", patch.table)));
    };
    if table.id_type == IdType::Uuid && !is_canonical_uuid(patch.row_id.as_str()) {
        let reason = format!("row {} of table {} has no lower-case hyphenated UUID", patch.sequence, patch.table);
        return Err((RejectionKind::Malformed, reason));
    }
    check_columns(patch, table)
}

fn check_columns(patch: &Patch, table: &Table) -> Result<(), (RejectionKind, String)> {
    for (name, value) in patch.effect.columns().into_iter().flatten() {
        let Some(column) = table.columns.get(name).filter(|column| column.writable) else {
            let reason = format!("table {} has no column {name} that can be written", patch.table);
            return Err((RejectionKind::UnknownColumn, reason));
        };
        if !takes(column.class, value) {
            let mismatch = KindMismatch { column: name.clone(), column_type: column.cast.clone(), kind: value.kind() };
            return Err((RejectionKind::Constraint, format!("table {}: {mismatch}", patch.table)));
        }
    }
    Ok(())
}

/// Two spellings of one UUID would be two rows of the log and one of the table.
fn is_canonical_uuid(text: &str) -> bool {
    Uuid::try_parse(text).is_ok_and(|uuid| uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text)
}
