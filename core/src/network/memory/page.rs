//! What a user may read of the log: pages for `fetch`, slices for subscribers.
//!
//! Place in the journey: after [`super::admit`]. A record is visible if one of its rows is; a row is, if its audience is.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Entry, History};
use crate::model::{AudienceKey, Cursor, Cursors, Epoch, ServerIngestId, SliceTag};
use crate::wire::{FetchPage, LogRecord, Slice};

/// Where a page of [`fetch`](crate::network::Network::fetch) ends. It always holds at least one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBounds {
    /// At this many records.
    pub records_max: usize,
    /// Before the record that would pass this size, encoded.
    pub bytes_max: usize,
}

impl Default for PageBounds {
    fn default() -> Self {
        Self { records_max: 500, bytes_max: 1 << 20 }
    }
}

/// The page after `cursors`, with the cursors that it reaches.
pub(super) fn page(
    history: &History,
    epoch: Epoch,
    audiences: &BTreeSet<AudienceKey>,
    cursors: &Cursors,
    bounds: PageBounds,
) -> FetchPage {
    let from = |audience: &AudienceKey| cursors.get(audience).copied().unwrap_or(Cursor::START);
    // One more than fits tells whether more follows.
    let limit = bounds.records_max.max(1);
    let mut found: BTreeMap<ServerIngestId, &Entry> = BTreeMap::new();
    for audience in audiences {
        found.extend(history.after(audience, from(audience)).take(limit + 1).map(|entry| (number(entry), entry)));
    }
    let mut records: Vec<LogRecord> = Vec::new();
    let mut bytes = 0;
    for entry in found.values().take(limit) {
        let record = log_record(entry, |audience| audiences.contains(audience));
        bytes += crate::wire::encode(&record).len();
        if bytes > bounds.bytes_max && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    let more = records.len() < found.len();
    let last = records.last().and_then(|record| record.record.server_ingest_id).filter(|_| more);
    let reached = |audience: &AudienceKey| {
        let head = history.head(audience);
        last.map_or(head, |last| head.min(Cursor::through(last))).max(from(audience))
    };
    let cursors = audiences.iter().map(|audience| (audience.clone(), reached(audience))).collect();
    FetchPage { epoch, records, cursors, more }
}

/// The slices of the commit that made the log grow from `len`, one for each audience in it.
pub(super) fn slices(history: &History, epoch: Epoch, len: usize) -> Vec<Slice> {
    let committed = &history.log()[len..];
    let audiences: BTreeSet<&AudienceKey> = committed.iter().flat_map(Entry::audiences).collect();
    let slice = |audience: &AudienceKey| Slice {
        epoch,
        audience_key: audience.clone(),
        prev: history.head_at(audience, len),
        through: history.head(audience),
        records: committed
            .iter()
            .filter(|entry| entry.audiences().contains(audience))
            .map(|entry| log_record(entry, |key| key == audience))
            .collect(),
    };
    audiences.into_iter().map(slice).collect()
}

/// The record as it travels, with those of its rows whose audience is `visible`.
pub(super) fn log_record(entry: &Entry, visible: impl Fn(&AudienceKey) -> bool) -> LogRecord {
    let mut slices: Vec<SliceTag> =
        entry.audiences().into_iter().map(|audience| SliceTag::of(entry.record.id, audience)).collect();
    slices.sort_unstable();
    LogRecord {
        record: entry.record.clone(),
        row_count: u32::try_from(entry.rows.len()).expect("BUG: row sequences are u32"),
        slices,
        rows: entry.rows.iter().filter(|patch| visible(&patch.audience_key)).cloned().collect(),
    }
}

fn number(entry: &Entry) -> ServerIngestId {
    entry.record.server_ingest_id.expect("BUG: entries of the log have a number")
}
