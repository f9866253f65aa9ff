//! The slices of a commit, made of what was just written: to read them again would be two ways to Postgres and back before
//! anybody hears of them.
//!
//! Place in the journey: after [`append`](super::append), for whoever publishes in this process. They are in the outbox all
//! the same, and equal to what [`crate::slices`] reads there.

use std::collections::BTreeMap;

use synchrotron_core::model::{ActionRecord, AudienceKey, Epoch, ServerIngestId};
use synchrotron_core::wire::{LogRecord, Slice};

use super::append::{Appended, Waiting};
use super::new_rows::Author;
use super::validate::Measured;
use crate::outbox::Fresh;

/// Slices of records that were appended with these authors, in the order of the outbox.
pub(super) fn slices(epoch: Epoch, records: &[(Author<'_>, &Measured<'_>)], appended: &Appended<'_>) -> Fresh {
    let mut of: BTreeMap<&str, Vec<LogRecord>> = BTreeMap::new();
    for ((author, record), numbered) in records.iter().zip(&appended.numbered) {
        for audience_key in &record.audiences {
            let records = of.entry(audience_key.as_str()).or_default();
            records.push(log_record(author, record, numbered.number, audience_key));
        }
    }
    let slice = |Waiting { id, audience_key, prev, through }: &Waiting| {
        let records = of.remove(audience_key.as_str()).unwrap_or_default();
        (*id, Slice { epoch, audience_key: audience_key.clone(), prev: *prev, through: *through, records })
    };
    appended.waiting.iter().map(slice).collect()
}

fn log_record(author: &Author<'_>, record: &Measured<'_>, number: i64, audience_key: &AudienceKey) -> LogRecord {
    let upload = record.upload;
    LogRecord {
        record: ActionRecord {
            id: upload.id,
            clock: upload.clock,
            client_id: author.client_id,
            user_id: author.user_id.clone(),
            server_ingest_id: Some(ServerIngestId::new(number)),
            body: upload.body.clone(),
            trace_parent: upload.trace_parent,
        },
        row_count: u32::try_from(upload.rows.len()).expect("BUG: a record is bounded in bytes"),
        slices: record.slice_tags(),
        rows: upload.rows.iter().filter(|row| row.audience_key == *audience_key).cloned().collect(),
    }
}
