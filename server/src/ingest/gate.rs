//! The head gate: an upload is taken only from a device that has seen what others did.
//!
//! Place in the journey: after the known records, before anything is written. The locks taken here are held until commit.
//!
//! # Invariants
//! - Two uploads of which one writes an audience that the other's gate covers never pass at once: writers lock heads
//!   FOR UPDATE, those who merely see them FOR SHARE (`synchrotron.lock_heads`); of those in one transaction, the second
//!   is behind the first.
//! - A device's own records never hold it back.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;
use synchrotron_core::model::{AudienceKey, ClientId, Cursor, Cursors};
use synchrotron_core::wire::Outcome;

use super::opening::Opening;
use super::pass::Candidate;
use crate::pg::query;
use crate::settings::HeadGate;

/// The heads of uploads' audiences, locked until the transaction ends, and numbers that were drawn under the locks.
#[derive(Debug, Default)]
pub(crate) struct LockedHeads {
    heads: BTreeMap<String, i64>,
    numbers: Vec<i64>,
}

impl LockedHeads {
    /// Locks the heads of audiences that are written; then draws so many numbers.
    pub(crate) async fn lock(
        conn: &mut PgConnection,
        touched: &BTreeSet<&AudienceKey>,
        numbers: usize,
    ) -> Result<Self, sqlx_core::Error> {
        let row = query("/* gate.lock */ SELECT keys, heads, drawn FROM synchrotron.lock_heads($1, NULL, $2)")
            .bind(touched.iter().map(|key| key.as_str()).collect::<Vec<_>>())
            .bind(i64::try_from(numbers).expect("BUG: what is written at once is bounded"))
            .fetch_one(conn)
            .await?;
        let keys: Vec<String> = row.try_get("keys")?;
        let heads: Option<Vec<i64>> = row.try_get("heads")?;
        let mut locked = Self { heads: keys.into_iter().zip(heads.unwrap_or_default()).collect(), numbers: Vec::new() };
        locked.draw(row.try_get("drawn")?);
        Ok(locked)
    }

    /// A head that is locked.
    pub(super) fn add(&mut self, audience_key: String, head: i64) {
        self.heads.insert(audience_key, head);
    }

    /// The numbers that were drawn, if there are any.
    pub(super) fn draw(&mut self, numbers: Option<Vec<i64>>) {
        self.numbers = numbers.unwrap_or_default();
    }

    /// The first of the drawn numbers. The others stay unused: how many records are known already, or refused, shows later.
    pub(crate) fn numbers(&self, count: usize) -> &[i64] {
        &self.numbers[..count]
    }

    /// The audience's head, before this transaction.
    pub(crate) fn head(&self, audience_key: &AudienceKey) -> i64 {
        self.heads.get(audience_key.as_str()).copied().unwrap_or(0)
    }
}

/// Forgets heads that were made to be locked, of audiences that nobody has written to by now.
pub(super) async fn forget(conn: &mut PgConnection, locked: &BTreeSet<&AudienceKey>) -> Result<(), sqlx_core::Error> {
    query("/* gate.forget */ DELETE FROM synchrotron.audience_heads WHERE audience_key = ANY($1) AND head = 0")
        .bind(locked.iter().map(|key| key.as_str()).collect::<Vec<_>>())
        .execute(conn)
        .await
        .map(drop)
}

/// Judges the uploads of one transaction, one after the other.
#[derive(Debug)]
pub(super) struct Gate<'a> {
    opening: &'a Opening,
    /// Who has written what by now, in this transaction.
    written: BTreeMap<&'a AudienceKey, BTreeSet<ClientId>>,
}

impl<'a> Gate<'a> {
    /// Nothing is written yet.
    pub(super) const fn new(opening: &'a Opening) -> Self {
        Self { opening, written: BTreeMap::new() }
    }

    /// Refuses an upload whose basis lacks another device's record in an audience that the gate covers.
    pub(super) fn admit(&self, mode: HeadGate, candidate: &Candidate<'_>) -> Result<(), Outcome> {
        let (place, client_id) = (candidate.open.place, candidate.open.upload.batch.client_id);
        let passed = |key: &AudienceKey| {
            self.written.get(key).is_some_and(|writers| writers.iter().any(|writer| *writer != client_id))
        };
        let lacking = |key: &&AudienceKey| passed(key) || self.opening.unseen.contains(&(place, (*key).clone()));
        let heads: Cursors = candidate
            .covered(mode)
            .filter(lacking)
            .map(|key| (key.clone(), Cursor::new(self.opening.heads.head(key))))
            .collect();
        if heads.is_empty() { Ok(()) } else { Err(Outcome::BehindHead { heads }) }
    }

    /// Whether an upload before this one, in this transaction, writes to the audience.
    pub(super) fn is_written(&self, audience_key: &AudienceKey) -> bool {
        self.written.contains_key(audience_key)
    }

    /// Notes what an upload writes that is taken.
    pub(super) fn pass(&mut self, client_id: ClientId, audiences: impl Iterator<Item = &'a AudienceKey>) {
        for audience_key in audiences {
            self.written.entry(audience_key).or_default().insert(client_id);
        }
    }
}
