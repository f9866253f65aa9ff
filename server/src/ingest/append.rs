//! Writes records to the log: records, rows, audiences, heads, outbox, and the answers that follow. One statement, set-based.
//!
//! Place in the journey: after the gate, under the heads' locks, before `materialize`. The records may be of several
//! uploads.
//!
//! # Invariants
//! - Numbers are drawn while the heads are locked: within an audience they become visible in their order, so no cursor
//!   can pass one that commits later.
//! - An audience's floor is the greatest position of any record with rows in it.
//! - Each touched audience gets one outbox row for the commit, whose `prev` is its head before it: slices chain.

use std::collections::BTreeMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgArguments, PgConnection, PgRow, Postgres};
use synchrotron_core::model::{AudienceKey, ClientId, Patch, RecordBody, ReplayKey, UserId};
use uuid::Uuid;

use super::answers::Answers;
use super::gate::LockedHeads;
use super::validate::Measured;
use crate::materialize::Numbered;
use crate::outbox::OutboxId;
use crate::pg::{encode_columns, encode_slices, query, unreadable};

/// Whose upload it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    /// The device.
    pub(crate) client_id: ClientId,
    /// The user that the connection proved.
    pub(crate) user_id: &'a UserId,
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Appended<'b> {
    /// The records with their numbers, in their order.
    pub(super) numbered: Vec<Numbered<'b>>,
    /// Names, audiences and bounds of the slices that wait to be published, in the order of the outbox.
    pub(super) waiting: Vec<(OutboxId, AudienceKey, i64, i64)>,
}

/// A new record and whose it is.
type New<'b> = (Author<'b>, &'b Measured<'b>);

/// Appends new records with the numbers that were drawn for them, in their order; and the answers that follow from them,
/// for when their batches come again.
pub(super) async fn append<'b>(
    conn: &mut PgConnection,
    records: &[New<'b>],
    heads: &LockedHeads,
    answers: &Answers<'_>,
) -> Result<Appended<'b>, sqlx_core::Error> {
    if records.is_empty() {
        return Ok(Appended::default());
    }
    let numbers = heads.numbers(records.len());
    let numbered: Vec<Numbered<'b>> = records
        .iter()
        .zip(numbers)
        .map(|((_, record), number)| Numbered { upload: record.upload, position: record.position, number: *number })
        .collect();
    let appending = bind_records(query(APPEND), records, numbers);
    let appending = bind_rows(appending, &numbered);
    let appending = bind_audiences(appending, records, numbers);
    let appending = bind_heads(appending, records, numbers, heads);
    let rows = answers.bind(appending).fetch_all(conn).await?;
    let mut waiting = rows.iter().map(waiting_of).collect::<Result<Vec<_>, _>>()?;
    waiting.sort_unstable_by_key(|(id, ..)| *id);
    Ok(Appended { numbered, waiting })
}

fn waiting_of(row: &PgRow) -> Result<(OutboxId, AudienceKey, i64, i64), sqlx_core::Error> {
    let audience_key = AudienceKey::new(row.try_get::<String, _>("audience_key")?).map_err(unreadable)?;
    Ok((OutboxId::of(row)?, audience_key, row.try_get("prev")?, row.try_get("through")?))
}

/// A statement whose parameters are being bound.
type Binding<'q> = sqlx_core::query::Query<'q, Postgres, PgArguments>;

/// All of it in one statement: each would be a way to Postgres and back under the heads' locks. Heads go up to the last
/// number, floors to the greatest position; postgres compares UUIDs bytewise, as we do.
const APPEND: &str = "/* append */ WITH \
    records AS (INSERT INTO synchrotron.action_records (client_id, user_id, id, server_ingest_id, tag, args, clock, \
        row_count, amends, reason, position_clock, position_client_id, position_action_id, slices, content_hash, \
        byte_count, trace_parent) \
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::bytea[], $7::bigint[], \
        $8::int[], $9::uuid[], $10::text[], $11::bigint[], $12::uuid[], $13::uuid[], $14::bytea[], $15::bytea[], \
        $16::int[], $17::text[])), \
    rows AS (INSERT INTO synchrotron.action_modified_rows (action_id, sequence, table_name, row_id, audience_key, \
        operation, columns, server_ingest_id, position_clock, position_client_id, position_action_id) \
        SELECT * FROM unnest($18::uuid[], $19::int[], $20::text[], $21::text[], $22::text[], $23::text[], $24::bytea[], \
        $25::bigint[], $26::bigint[], $27::uuid[], $28::uuid[])), \
    audiences AS (INSERT INTO synchrotron.action_audiences (client_id, audience_key, server_ingest_id, action_id) \
        SELECT * FROM unnest($29::uuid[], $30::text[], $31::bigint[], $32::uuid[])), \
    reached AS (SELECT * FROM unnest($33::text[], $34::bigint[], $35::bigint[], $36::bigint[], $37::uuid[], $38::uuid[]) \
        AS r(audience_key, prev, through, clock, client_id, action_id)), \
    advanced AS (UPDATE synchrotron.audience_heads h SET head = r.through, \
        (floor_clock, floor_client_id, floor_action_id) = (SELECT * FROM (VALUES \
            (h.floor_clock, h.floor_client_id, h.floor_action_id), (r.clock, r.client_id, r.action_id)) AS f(a, b, c) \
            WHERE f.a IS NOT NULL ORDER BY a DESC, b DESC, c DESC LIMIT 1) \
        FROM reached r WHERE h.audience_key = r.audience_key), \
    answers AS (INSERT INTO synchrotron.upload_outcomes (client_id, batch_id, user_id, content_hash, outcome) \
        SELECT * FROM unnest($39::uuid[], $40::uuid[], $41::text[], $42::bytea[], $43::bytea[]) \
        ON CONFLICT (client_id, batch_id) DO UPDATE SET content_hash = excluded.content_hash, \
        outcome = excluded.outcome, created_at = now()) \
    INSERT INTO synchrotron.outbox (audience_key, prev, through) SELECT audience_key, prev, through FROM reached \
        RETURNING id, audience_key, prev, through";

fn bind_records<'q>(query: Binding<'q>, records: &[New<'_>], numbers: &[i64]) -> Binding<'q> {
    let column = |value: fn(&Measured<'_>) -> Uuid| records.iter().map(|(_, r)| value(r)).collect::<Vec<_>>();
    let tags: Vec<Option<&str>> = records.iter().map(|(_, r)| action_of(r).map(|(tag, _)| tag)).collect();
    let args: Vec<Option<&[u8]>> = records.iter().map(|(_, r)| action_of(r).map(|(_, args)| args)).collect();
    let amends: Vec<Option<Uuid>> = records
        .iter()
        .map(|(_, r)| matches!(r.upload.body, RecordBody::Correction { .. }).then(|| *r.position.action_id.as_uuid()))
        .collect();
    let integer = |value: usize| i32::try_from(value).expect("BUG: a record is bounded in bytes");
    query
        .bind(records.iter().map(|(author, _)| *author.client_id.as_uuid()).collect::<Vec<_>>())
        .bind(records.iter().map(|(author, _)| author.user_id.as_str()).collect::<Vec<_>>())
        .bind(column(|r| *r.upload.id.as_uuid()))
        .bind(numbers)
        .bind(tags)
        .bind(args)
        .bind(records.iter().map(|(_, r)| r.upload.clock.packed()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, r)| integer(r.upload.rows.len())).collect::<Vec<_>>())
        .bind(amends)
        .bind(records.iter().map(|(_, r)| reason_of(r)).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, r)| r.position.clock.packed()).collect::<Vec<_>>())
        .bind(column(|r| *r.position.client_id.as_uuid()))
        .bind(column(|r| *r.position.action_id.as_uuid()))
        .bind(records.iter().map(|(_, r)| encode_slices(&r.slice_tags())).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, r)| r.content_hash.as_slice()).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, r)| integer(r.byte_count)).collect::<Vec<_>>())
        .bind(records.iter().map(|(_, r)| r.upload.trace_parent.map(|trace| trace.to_string())).collect::<Vec<_>>())
}

fn bind_rows<'q>(query: Binding<'q>, records: &[Numbered<'_>]) -> Binding<'q> {
    let rows: Vec<(&Numbered<'_>, &Patch)> =
        records.iter().flat_map(|record| record.upload.rows.iter().map(move |patch| (record, patch))).collect();
    let columns = |patch: &Patch| patch.effect.columns().map_or_else(|| vec![0x80], encode_columns);
    let integer = |value: u32| i32::try_from(value).expect("BUG: a record is bounded in bytes");
    query
        .bind(rows.iter().map(|(r, _)| *r.upload.id.as_uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| integer(patch.sequence)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| patch.table.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| patch.row_id.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| patch.audience_key.as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| patch.effect.operation().as_str()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(_, patch)| columns(patch)).collect::<Vec<_>>())
        .bind(rows.iter().map(|(r, _)| r.number).collect::<Vec<_>>())
        .bind(rows.iter().map(|(r, _)| r.position.clock.packed()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(r, _)| *r.position.client_id.as_uuid()).collect::<Vec<_>>())
        .bind(rows.iter().map(|(r, _)| *r.position.action_id.as_uuid()).collect::<Vec<_>>())
}

fn bind_audiences<'q>(query: Binding<'q>, records: &[New<'_>], numbers: &[i64]) -> Binding<'q> {
    let mut keys: Vec<&str> = Vec::new();
    let mut of: Vec<i64> = Vec::new();
    let mut ids: Vec<Uuid> = Vec::new();
    let mut clients: Vec<Uuid> = Vec::new();
    for ((author, record), number) in records.iter().zip(numbers) {
        for audience_key in record.audiences() {
            keys.push(audience_key.as_str());
            of.push(*number);
            ids.push(*record.upload.id.as_uuid());
            clients.push(*author.client_id.as_uuid());
        }
    }
    query.bind(clients).bind(keys).bind(of).bind(ids)
}

fn bind_heads<'q>(query: Binding<'q>, records: &[New<'_>], numbers: &[i64], heads: &LockedHeads) -> Binding<'q> {
    let mut reached: BTreeMap<&AudienceKey, (i64, ReplayKey)> = BTreeMap::new();
    for ((_, record), number) in records.iter().zip(numbers) {
        for audience_key in record.audiences() {
            let (through, greatest) = reached.entry(audience_key).or_insert((*number, record.position));
            *through = *number;
            *greatest = record.position.max(*greatest);
        }
    }
    let greatest = |part: fn(&ReplayKey) -> Uuid| reached.values().map(|(_, at)| part(at)).collect::<Vec<_>>();
    query
        .bind(reached.keys().map(|key| key.as_str()).collect::<Vec<_>>())
        .bind(reached.keys().map(|key| heads.head(key)).collect::<Vec<_>>())
        .bind(reached.values().map(|(through, _)| *through).collect::<Vec<_>>())
        .bind(reached.values().map(|(_, at)| at.clock.packed()).collect::<Vec<_>>())
        .bind(greatest(|at| *at.client_id.as_uuid()))
        .bind(greatest(|at| *at.action_id.as_uuid()))
}

fn action_of<'a>(record: &'a Measured<'_>) -> Option<(&'a str, &'a [u8])> {
    match &record.upload.body {
        RecordBody::Action { tag, args } => Some((tag.as_str(), args.as_bytes())),
        RecordBody::Correction { .. } => None,
    }
}

fn reason_of<'a>(record: &'a Measured<'_>) -> Option<&'a str> {
    match &record.upload.body {
        RecordBody::Action { .. } => None,
        RecordBody::Correction { reason, .. } => reason.as_deref(),
    }
}
