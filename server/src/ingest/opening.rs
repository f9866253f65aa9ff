//! What is locked and read before uploads are judged, in one statement: each hop of its own would be a way to Postgres and
//! back under locks.
//!
//! Place in the journey: first hop of a group's transaction. In this order, each seeing what those left who held the lock
//! before: the devices' rows are locked; the users' audiences are read; the heads are locked, and numbers drawn; memberships
//! are read that came with what a head was waited for; earlier answers, known records and what the log says under the locks are
//! read, by which [`age`](super::age) and [`gate`](super::gate) judge, and [`materialize`](crate::materialize) tells late
//! effects. See `migrations/0013_openings.sql`.
//!
//! # Invariants
//! - A batch that comes again finds the answer that it was given, whichever process gave it.
//! - The audiences that a device must have seen are those whose heads are locked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{ActionId, AudienceKey, ClientId, Cursor, Epoch, Hlc, ReplayKey, RowKey, ServerIngestId};
use synchrotron_core::wire::Outcome;

use super::age::Places;
use super::gate::LockedHeads;
use super::group::Open;
use super::known::Known;
use crate::audiences::named;
use crate::pg::{composites, query, unreadable};
use crate::settings::HeadGate;

/// What there is about uploads. They are named by their places in their group.
#[derive(Debug)]
pub(super) struct Opening {
    /// Whom each device belongs to.
    pub(super) owners: HashMap<ClientId, String>,
    /// The server's present history.
    pub(super) epoch: Epoch,
    /// By upload, the hash of what was answered before, and the answer.
    pub(super) answers: HashMap<usize, ([u8; 32], Outcome)>,
    /// By upload, its user's audiences now, by the app's view; read as the server.
    pub(super) audiences: BTreeMap<usize, BTreeSet<AudienceKey>>,
    /// Records that are, or were, in the log.
    pub(super) known: Known,
    /// The heads of what is written and, where the gate covers it, of what is seen; and a number for each record.
    pub(super) heads: LockedHeads,
    /// By upload that is too old, the clock that it must be above.
    pub(super) ages: BTreeMap<usize, Hlc>,
    /// By upload, the audiences in which the log has what its device lacks.
    pub(super) unseen: BTreeSet<(usize, AudienceKey)>,
    /// The newest position of each row that has effects in the log.
    pub(super) newest: HashMap<RowKey, ReplayKey>,
}

impl Opening {
    /// Opens uploads in a transaction, which waits for no lock longer than that.
    pub(super) async fn read(
        conn: &mut PgConnection,
        gate: HeadGate,
        uploads: &[&Open<'_>],
        lock_within: Duration,
    ) -> Result<Self, sqlx_core::Error> {
        let opening = Self::read_beside(conn, gate, uploads, lock_within, &Known::default()).await?;
        // What is too old says nothing against a record that the log has.
        if uploads.iter().any(|open| opening.known.is_part_of(&open.records)) {
            return Self::read_beside(conn, gate, uploads, lock_within, &opening.known).await;
        }
        Ok(opening)
    }

    /// Judges the places of those records alone that are not in `known`.
    async fn read_beside(
        conn: &mut PgConnection,
        gate: HeadGate,
        uploads: &[&Open<'_>],
        lock_within: Duration,
        known: &Known,
    ) -> Result<Self, sqlx_core::Error> {
        let batches = || uploads.iter().map(|open| &open.upload.batch);
        let records = || uploads.iter().flat_map(|open| &open.records);
        let touched: BTreeSet<&AudienceKey> = uploads.iter().flat_map(|open| open.touched()).collect();
        let Places { audiences, rows, uploads: all, amended } = Places::of(uploads, known);
        let found = query(OPEN)
            .bind(lock_within.as_millis().to_string())
            .bind(batches().map(|batch| *batch.client_id.as_uuid()).collect::<Vec<_>>())
            .bind(uploads.iter().map(|open| open.upload.user_id.as_str()).collect::<Vec<_>>())
            .bind(batches().map(|batch| *batch.batch_id.as_uuid()).collect::<Vec<_>>())
            .bind(uploads.iter().map(|open| basis_of(gate, open)).collect::<Vec<_>>())
            .bind(gate == HeadGate::Visible)
            .bind(records().map(|record| *record.upload.id.as_uuid()).collect::<Vec<_>>())
            .bind(touched.iter().map(|key| key.as_str()).collect::<Vec<_>>())
            .bind(i64::try_from(records().count()).expect("BUG: a group is bounded"))
            .bind(composites(&audiences))
            .bind(composites(&rows))
            .bind(all.keys().map(|(place, ())| *place).collect::<Vec<_>>())
            .bind(all.values().map(|least| least.clock.packed()).collect::<Vec<_>>())
            .bind(amended.iter().map(|(place, _)| *place).collect::<Vec<_>>())
            .bind(amended.iter().map(|(_, id)| *id).collect::<Vec<_>>())
            .fetch_all(conn)
            .await?;
        let rows: Vec<&RowKey> = rows.keys().map(|(_, key)| key).collect();
        let mut opening = Self::nothing_of(uploads, epoch_of(&found)?);
        for row in &found {
            opening.add(row, uploads, &rows)?;
        }
        Ok(opening)
    }

    fn nothing_of(uploads: &[&Open<'_>], epoch: Epoch) -> Self {
        Self {
            owners: HashMap::new(),
            epoch,
            answers: HashMap::new(),
            audiences: uploads.iter().map(|open| (open.place, BTreeSet::new())).collect(),
            known: Known::default(),
            heads: LockedHeads::default(),
            ages: BTreeMap::new(),
            unseen: BTreeSet::new(),
            newest: HashMap::new(),
        }
    }

    fn add(&mut self, row: &PgRow, uploads: &[&Open<'_>], rows: &[&RowKey]) -> Result<(), sqlx_core::Error> {
        let place = || Ok::<_, sqlx_core::Error>(index(row)?).map(|index| uploads[index].place);
        let key = || AudienceKey::new(row.try_get::<String, _>("key")?).map_err(unreadable);
        match row.try_get("thing")? {
            "epoch" => {}
            "client" => {
                self.owners.insert(ClientId::from_uuid(row.try_get("id")?), row.try_get("key")?);
            }
            "answer" => {
                let outcome = rmp_serde::from_slice(row.try_get("outcome")?).map_err(unreadable)?;
                self.answers.insert(place()?, (hash_of(row)?, outcome));
            }
            "record" => {
                let number = ServerIngestId::new(row.try_get("number")?);
                self.known.add(ActionId::from_uuid(row.try_get("id")?), number, hash_of(row)?);
            }
            "audience" => self.audiences.entry(place()?).or_default().extend(named(row.try_get("key")?)),
            "head" => self.heads.add(row.try_get("key")?, row.try_get("number")?),
            "drawn" => self.heads.draw(row.try_get("numbers")?),
            "age" => drop(self.ages.insert(place()?, Hlc::from_packed(row.try_get("number")?))),
            "unseen" => drop(self.unseen.insert((place()?, key()?))),
            _ => drop(self.newest.insert(rows[index(row)?].clone(), position_of(row)?)),
        }
        Ok(())
    }
}

/// What a device has seen of the audiences that the gate covers, as far as it can be told without knowing its user's: in
/// those that it does not name, nothing.
pub(super) fn basis_of(gate: HeadGate, open: &Open<'_>) -> String {
    let basis = &open.upload.batch.basis;
    let cursors: BTreeMap<&str, i64> = match gate {
        HeadGate::Visible => basis.iter().map(|(key, cursor)| (key.as_str(), cursor.get())).collect(),
        HeadGate::Touched => {
            let cursor = |key| basis.get(key).copied().unwrap_or(Cursor::START).get();
            open.touched().into_iter().map(|key| (key.as_str(), cursor(key))).collect()
        }
    };
    serde_json::to_string(&cursors).expect("BUG: texts and numbers are JSON")
}

fn epoch_of(found: &[PgRow]) -> Result<Epoch, sqlx_core::Error> {
    for row in found {
        if row.try_get::<&str, _>("thing")? == "epoch" {
            return Ok(Epoch::from_uuid(row.try_get("id")?));
        }
    }
    Err(sqlx_core::Error::RowNotFound)
}

fn index(row: &PgRow) -> Result<usize, sqlx_core::Error> {
    Ok(usize::try_from(row.try_get::<i64, _>("place")?).expect("BUG: places count from 0"))
}

fn position_of(row: &PgRow) -> Result<ReplayKey, sqlx_core::Error> {
    Ok(ReplayKey {
        clock: Hlc::from_packed(row.try_get("number")?),
        client_id: ClientId::from_uuid(row.try_get("client_id")?),
        action_id: ActionId::from_uuid(row.try_get("id")?),
    })
}

/// The hash of what a record or a batch holds.
fn hash_of(row: &PgRow) -> Result<[u8; 32], sqlx_core::Error> {
    let hash = row.try_get::<&[u8], _>("hash")?.try_into();
    hash.map_err(|error: std::array::TryFromSliceError| unreadable(error))
}

/// See the function.
pub(crate) const OPEN: &str = "/* ingest.open */ SELECT thing, place, key, id, client_id, number, hash, outcome, numbers \
    FROM synchrotron.open_uploads($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
