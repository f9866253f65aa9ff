//! Writes records to the log: records, rows, audiences, heads and outbox. One statement, set-based: each would be a way to
//! Postgres and back under the heads' locks. See `migrations/0014_new_rows.sql`.
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
use synchrotron_core::model::{AudienceKey, Cursor};

use super::gate::LockedHeads;
use super::new_rows::{Author, NewRows};
use super::validate::Measured;
use crate::materialize::Numbered;
use crate::outbox::OutboxId;
use crate::pg::{query, unreadable};

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Appended<'b> {
    /// The records with their numbers, in their order.
    pub(super) numbered: Vec<Numbered<'b>>,
    /// The slices that wait to be published, in the order of the outbox.
    pub(super) waiting: Vec<Waiting>,
}

/// Names a slice of what was written.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) id: OutboxId,
    pub(super) audience_key: AudienceKey,
    /// The head before it.
    pub(super) prev: Cursor,
    /// The head now.
    pub(super) through: Cursor,
}

impl<'b> Appended<'b> {
    /// Records with the numbers that they got, and the slices that wait.
    pub(super) fn of(records: &[(Author<'b>, &'b Measured<'b>)], numbers: &[i64], mut waiting: Vec<Waiting>) -> Self {
        waiting.sort_unstable_by_key(|slice| slice.id);
        let numbered = records.iter().zip(numbers).map(|((_, record), number)| Numbered {
            upload: record.upload,
            position: record.position,
            number: *number,
        });
        Self { numbered: numbered.collect(), waiting }
    }
}

/// Appends new records with the numbers that were drawn for them, in their order.
pub(super) async fn append<'b>(
    conn: &mut PgConnection,
    records: &[(Author<'b>, &'b Measured<'b>)],
    heads: &LockedHeads,
) -> Result<Appended<'b>, sqlx_core::Error> {
    if records.is_empty() {
        return Ok(Appended::default());
    }
    let numbers = heads.numbers(records.len());
    let appending =
        query("/* append */ SELECT id, audience_key, prev, through FROM synchrotron.append($1, $2, $3, $4, $5)");
    let rows = NewRows::of(records).bind(appending.bind(numbers)).fetch_all(conn).await?;
    let waiting = rows.iter().map(waiting_of).collect::<Result<_, _>>()?;
    Ok(Appended::of(records, numbers, waiting))
}

/// A slice that an adding statement returns.
pub(super) fn waiting_of(row: &PgRow) -> Result<Waiting, sqlx_core::Error> {
    let cursor = |name| row.try_get(name).map(Cursor::new);
    let audience_key = AudienceKey::new(row.try_get::<String, _>("audience_key")?).map_err(unreadable)?;
    Ok(Waiting { id: OutboxId::of(row)?, audience_key, prev: cursor("prev")?, through: cursor("through")? })
}
