//! Schema drift on SQLite: what did not fit, and the shape that it did not fit.
//!
//! The shape is the names of tracked tables and of their columns. It is compared at every start, and whenever another
//! connection changed the schema. Where it gained something, what did not fit is tried again: from the log, if the log
//! has it; otherwise every audience is marked for a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::SqliteTxn;
use super::capture::{Capture, Mode};
use super::codec::{pack, unpack};
use crate::model::{ActionId, ClientId, Hlc, Patch, ReplayKey};
use crate::store::{DriftStore, StoreError};

type Shape = BTreeMap<String, BTreeSet<String>>;

/// Compares the tracked tables with what they were, and remembers them.
pub(super) fn note_shape(connection: &Connection, capture: &Capture) -> Result<(), StoreError> {
    let shape: Shape =
        capture.tables().iter().map(|table| (table.name.clone(), table.columns.keys().cloned().collect())).collect();
    let known: Option<Vec<u8>> = connection.query_row("SELECT shape FROM client_sync_status", [], |row| row.get(0))?;
    let known: Option<Shape> = known.map(|packed| unpack(&packed, "client_sync_status.shape")).transpose()?;
    if known.as_ref() == Some(&shape) {
        return Ok(());
    }
    if known.is_some_and(|known| gained(&known, &shape)) {
        try_again(connection)?;
    }
    connection.execute("UPDATE client_sync_status SET shape = ?", [pack(&shape)])?;
    Ok(())
}

fn gained(known: &Shape, now: &Shape) -> bool {
    now.iter().any(|(table, columns)| known.get(table).is_none_or(|known| !columns.is_subset(known)))
}

fn try_again(connection: &Connection) -> Result<(), StoreError> {
    connection.execute("UPDATE local_unfit SET again = 1", [])?;
    let beyond_the_log: bool = connection.query_row(
        "SELECT unfit_snapshot OR EXISTS (SELECT 1 FROM local_unfit WHERE NOT EXISTS (SELECT 1 FROM action_records \
         WHERE action_records.position_clock = local_unfit.position_clock \
         AND action_records.position_client_id = local_unfit.position_client_id \
         AND action_records.position_action_id = local_unfit.position_action_id)) FROM client_sync_status",
        [],
        |row| row.get(0),
    )?;
    if beyond_the_log {
        connection.execute("UPDATE client_audiences SET stale = 1", [])?;
        connection.execute("UPDATE client_sync_status SET unfit_snapshot = 0", [])?;
    }
    Ok(())
}

impl SqliteTxn<'_> {
    /// A row of a snapshot does not fit.
    pub(super) fn note_unfit_snapshot(&self) -> Result<(), StoreError> {
        self.transaction.prepare_cached("UPDATE client_sync_status SET unfit_snapshot = 1")?.execute([])?;
        Ok(())
    }
}

impl DriftStore for SqliteTxn<'_> {
    fn fits(&self, patch: &[Patch]) -> bool {
        self.capture.fits(patch.iter().map(|patch| (patch.table.as_str(), &patch.effect)))
    }

    fn note_unfit(&self, position: ReplayKey) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached(
                "INSERT OR IGNORE INTO local_unfit (position_clock, position_client_id, position_action_id) \
                 VALUES (?, ?, ?)",
            )?
            .execute((
                position.clock.packed(),
                position.client_id.as_uuid().as_bytes(),
                position.action_id.as_uuid().as_bytes(),
            ))?;
        Ok(())
    }

    fn refit_from(&self) -> Result<Option<ReplayKey>, StoreError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT position_clock, position_client_id, position_action_id FROM local_unfit WHERE again = 1 \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
        )?;
        let first = statement.query_row([], |row| {
            Ok(ReplayKey {
                clock: Hlc::from_packed(row.get(0)?),
                client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(1)?)),
                action_id: ActionId::from_uuid(Uuid::from_bytes(row.get(2)?)),
            })
        });
        Ok(first.optional()?)
    }

    fn begin_refit(&self) -> Result<(), StoreError> {
        self.transaction.prepare_cached("DELETE FROM local_unfit WHERE again = 1")?.execute([])?;
        Ok(())
    }

    fn has_displaced(&self) -> Result<bool, StoreError> {
        self.has_displaced_rows()
    }

    fn put_back(&self, action: ActionId) -> Result<(), StoreError> {
        if !self.has_displaced_rows()? {
            return Ok(());
        }
        self.enforce_foreign_keys(false)?;
        self.capture.set(Mode::Patch(action));
        let put_back = self.put_back_rows();
        self.capture.close();
        put_back
    }
}
