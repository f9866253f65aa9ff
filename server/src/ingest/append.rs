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

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::AudienceKey;

use super::answers::Answers;
use super::gate::LockedHeads;
use super::new_rows::{Author, NewAudience, NewEffect, NewRecord, ReachedHead};
use super::validate::Measured;
use crate::materialize::Numbered;
use crate::outbox::OutboxId;
use crate::pg::{composites, query, unreadable};

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Appended<'b> {
    /// The records with their numbers, in their order.
    pub(super) numbered: Vec<Numbered<'b>>,
    /// Names, audiences and bounds of the slices that wait to be published, in the order of the outbox.
    pub(super) waiting: Vec<(OutboxId, AudienceKey, i64, i64)>,
}

/// Appends new records with the numbers that were drawn for them, in their order; and the answers that follow from them,
/// for when their batches come again.
pub(super) async fn append<'b>(
    conn: &mut PgConnection,
    records: &[(Author<'b>, &'b Measured<'b>)],
    heads: &LockedHeads,
    answers: &Answers<'_>,
) -> Result<Appended<'b>, sqlx_core::Error> {
    if records.is_empty() {
        return Ok(Appended::default());
    }
    let numbered = records.iter().zip(heads.numbers(records.len()));
    let new = numbered.map(|((author, record), number)| NewRecord { author: *author, record, number: *number });
    let new: Vec<NewRecord<'b>> = new.collect();
    let numbered: Vec<Numbered<'b>> = new.iter().map(NewRecord::numbered).collect();
    let rows = query(APPEND)
        .bind(composites(&new))
        .bind(composites(numbered.iter().flat_map(NewEffect::of)))
        .bind(composites(new.iter().flat_map(NewAudience::of)))
        .bind(composites(ReachedHead::of(&new, heads)))
        .bind(composites(answers.all()))
        .fetch_all(conn)
        .await?;
    let mut waiting = rows.iter().map(waiting_of).collect::<Result<Vec<_>, _>>()?;
    waiting.sort_unstable_by_key(|(id, ..)| *id);
    Ok(Appended { numbered, waiting })
}

fn waiting_of(row: &PgRow) -> Result<(OutboxId, AudienceKey, i64, i64), sqlx_core::Error> {
    let audience_key = AudienceKey::new(row.try_get::<String, _>("audience_key")?).map_err(unreadable)?;
    Ok((OutboxId::of(row)?, audience_key, row.try_get("prev")?, row.try_get("through")?))
}

/// All of it in one statement: each would be a way to Postgres and back under the heads' locks. Heads go up to the last
/// number, floors to the greatest position; postgres compares UUIDs bytewise, as we do.
const APPEND: &str = "/* append */ WITH \
    records AS (INSERT INTO synchrotron.action_records (client_id, user_id, id, server_ingest_id, tag, args, clock, \
        row_count, amends, reason, position_clock, position_client_id, position_action_id, slices, content_hash, \
        byte_count, trace_parent) SELECT * FROM unnest($1::synchrotron.new_record[])), \
    rows AS (INSERT INTO synchrotron.action_modified_rows (action_id, sequence, table_name, row_id, audience_key, \
        operation, columns, server_ingest_id, position_clock, position_client_id, position_action_id) \
        SELECT * FROM unnest($2::synchrotron.new_effect[])), \
    audiences AS (INSERT INTO synchrotron.action_audiences (client_id, audience_key, server_ingest_id, action_id) \
        SELECT * FROM unnest($3::synchrotron.new_audience[])), \
    reached AS (SELECT * FROM unnest($4::synchrotron.reached_head[])), \
    advanced AS (UPDATE synchrotron.audience_heads h SET head = r.through, \
        (floor_clock, floor_client_id, floor_action_id) = (SELECT * FROM (VALUES \
            (h.floor_clock, h.floor_client_id, h.floor_action_id), (r.clock, r.client_id, r.action_id)) AS f(a, b, c) \
            WHERE f.a IS NOT NULL ORDER BY a DESC, b DESC, c DESC LIMIT 1) \
        FROM reached r WHERE h.audience_key = r.audience_key), \
    answers AS (INSERT INTO synchrotron.upload_outcomes (client_id, batch_id, user_id, content_hash, outcome) \
        SELECT * FROM unnest($5::synchrotron.new_answer[]) \
        ON CONFLICT (client_id, batch_id) DO UPDATE SET content_hash = excluded.content_hash, \
        outcome = excluded.outcome, created_at = now()) \
    INSERT INTO synchrotron.outbox (audience_key, prev, through) SELECT audience_key, prev, through FROM reached \
        RETURNING id, audience_key, prev, through";
