//! The action log on SQLite.

use std::collections::BTreeSet;

use rusqlite::{OptionalExtension, Params, params_from_iter};
use uuid::Uuid;

use super::SqliteTxn;
use super::record::{bound, logged, read_position, records};
use crate::model::{ActionId, ClientId, Patch, ReplayKey, ServerIngestId};
use crate::store::log::UNSENT;
use crate::store::{LogStore, Logged, StoreError, StoredRecord};

/// So many ids are looked up by one statement.
const KNOWN_AT_ONCE: usize = 100;

impl SqliteTxn<'_> {
    fn position(&self, sql: &str, params: impl Params) -> Result<Option<ReplayKey>, StoreError> {
        Ok(self.transaction.prepare_cached(sql)?.query_row(params, |row| read_position(row, 0)).optional()?)
    }
}

impl LogStore for SqliteTxn<'_> {
    fn put_record(&self, stored: &StoredRecord) -> Result<(), StoreError> {
        if !self.add_record(stored)? {
            self.remove_record(stored.record.id)?;
            self.add_record(stored)?;
        }
        self.add_rows(stored.record.id, &stored.rows)
    }

    fn remove_record(&self, id: ActionId) -> Result<(), StoreError> {
        self.remove_rows(id)?;
        let id = id.as_uuid().as_bytes();
        self.transaction.prepare_cached("DELETE FROM action_records WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    fn known(&self, ids: &[ActionId]) -> Result<BTreeSet<ActionId>, StoreError> {
        let sql = format!("SELECT id FROM action_records WHERE id IN (?{})", ", ?".repeat(KNOWN_AT_ONCE - 1));
        let mut statement = self.transaction.prepare_cached(&sql)?;
        let mut known = BTreeSet::new();
        for ids in ids.chunks(KNOWN_AT_ONCE) {
            // Places that are left over are NULL, and no id is.
            let places = (0..KNOWN_AT_ONCE).map(|place| ids.get(place).map(|id| id.as_uuid().as_bytes()));
            let mut rows = statement.query(params_from_iter(places))?;
            while let Some(row) = rows.next()? {
                known.insert(ActionId::from_uuid(Uuid::from_bytes(row.get(0)?)));
            }
        }
        Ok(known)
    }

    fn record(&self, id: ActionId) -> Result<Option<StoredRecord>, StoreError> {
        Ok(self.records_where(records!("WHERE id = ?"), [id.as_uuid().as_bytes()])?.pop())
    }

    fn put_patch(&self, id: ActionId, rows: &[Patch]) -> Result<(), StoreError> {
        self.remove_rows(id)?;
        self.add_rows(id, rows)?;
        let count = i64::try_from(rows.len()).expect("BUG: more rows than memory holds");
        self.transaction
            .prepare_cached("UPDATE action_records SET row_count = ? WHERE id = ?")?
            .execute((count, id.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn accept(&self, id: ActionId, number: ServerIngestId) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE action_records SET server_ingest_id = ? WHERE id = ? AND server_ingest_id IS NULL")?
            .execute((number.get(), id.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn remember_faithful(&self, id: ActionId, faithful: Option<bool>) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE action_records SET faithful = ? WHERE id = ?")?
            .execute((faithful, id.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn at_or_after(&self, from: ReplayKey) -> Result<Option<Logged>, StoreError> {
        self.logged(logged!(">="), from)
    }

    fn after(&self, position: ReplayKey) -> Result<Option<Logged>, StoreError> {
        self.logged(logged!(">"), position)
    }

    fn newest_before(&self, position: ReplayKey) -> Result<i64, StoreError> {
        let newest = self
            .transaction
            .prepare_cached(
                "SELECT newest_through FROM action_records \
                 WHERE (position_clock, position_client_id, position_action_id) < (?, ?, ?) \
                 ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1",
            )?
            .query_row(bound(position), |row| row.get(0))
            .optional()?;
        Ok(newest.unwrap_or(0))
    }

    fn remember_newest(&self, position: ReplayKey, newest: i64) -> Result<(), StoreError> {
        let (clock, client_id, action_id) = bound(position);
        self.transaction
            .prepare_cached(
                "UPDATE action_records SET newest_through = ? \
                 WHERE position_clock = ? AND position_client_id = ? AND position_action_id = ?",
            )?
            .execute((newest, clock, client_id, action_id))?;
        Ok(())
    }

    fn first_later_than(&self, number: ServerIngestId, before: ReplayKey) -> Result<Option<ReplayKey>, StoreError> {
        let (clock, client_id, action_id) = bound(before);
        let arrived = self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             INDEXED BY action_records_by_arrival WHERE server_ingest_id > ? \
             AND (position_clock, position_client_id, position_action_id) < (?, ?, ?) \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            (number.get(), clock, client_id, action_id),
        )?;
        let unsent = self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             WHERE server_ingest_id IS NULL \
             AND (position_clock, position_client_id, position_action_id) < (?, ?, ?) \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            (clock, client_id, action_id),
        )?;
        Ok(arrived.into_iter().chain(unsent).min())
    }

    fn unsent(&self, after: Option<(ReplayKey, ActionId)>, limit: usize) -> Result<Vec<StoredRecord>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(UNSENT);
        let Some((position, id)) = after else {
            return self.records_where(
                records!(
                    "WHERE server_ingest_id IS NULL \
                     ORDER BY position_clock, position_client_id, position_action_id, id LIMIT ?"
                ),
                [limit],
            );
        };
        let (clock, client_id, action_id) = bound(position);
        self.records_where(
            records!(
                "WHERE server_ingest_id IS NULL \
                 AND (position_clock, position_client_id, position_action_id, id) > (?, ?, ?, ?) \
                 ORDER BY position_clock, position_client_id, position_action_id, id LIMIT ?"
            ),
            (clock, client_id, action_id, id.as_uuid().as_bytes(), limit),
        )
    }

    fn first_unsent(&self) -> Result<Option<ReplayKey>, StoreError> {
        self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             WHERE server_ingest_id IS NULL \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            [],
        )
    }

    fn first_position(&self) -> Result<Option<ReplayKey>, StoreError> {
        self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            [],
        )
    }

    fn position_before(&self, position: ReplayKey) -> Result<Option<ReplayKey>, StoreError> {
        self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             WHERE (position_clock, position_client_id, position_action_id) < (?, ?, ?) \
             ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1",
            bound(position),
        )
    }

    fn last_accepted(&self) -> Result<Option<ReplayKey>, StoreError> {
        self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             INDEXED BY action_records_by_position WHERE server_ingest_id IS NOT NULL \
             ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1",
            [],
        )
    }

    fn last_position(&self) -> Result<Option<ReplayKey>, StoreError> {
        self.position(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             ORDER BY position_clock DESC, position_client_id DESC, position_action_id DESC LIMIT 1",
            [],
        )
    }

    fn reopen(&self, client_id: ClientId) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached(
                "UPDATE action_records SET server_ingest_id = NULL, faithful = NULL \
                 WHERE client_id = ? AND tag IS NOT NULL \
                 AND row_count = (SELECT count(*) FROM action_modified_rows WHERE action_id = id)",
            )?
            .execute([client_id.as_uuid().as_bytes()])?;
        self.transaction
            .prepare_cached("DELETE FROM action_records WHERE server_ingest_id IS NOT NULL AND row_count = 0")?
            .execute([])?;
        Ok(())
    }

    fn pending_count(&self) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM action_records WHERE server_ingest_id IS NULL AND tag IS NOT NULL";
        let count: i64 = self.transaction.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
        Ok(count.cast_unsigned())
    }

    fn remove_unsent_corrections(&self, from: ReplayKey) -> Result<(), StoreError> {
        let (clock, client_id, action_id) = bound(from);
        let ids: Vec<[u8; 16]> = self
            .transaction
            .prepare_cached(
                "SELECT id FROM action_records WHERE server_ingest_id IS NULL AND tag IS NULL \
                 AND (position_clock, position_client_id, position_action_id) >= (?, ?, ?)",
            )?
            .query_map((clock, client_id, action_id), |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        ids.into_iter().try_for_each(|id| self.remove_record(ActionId::from_uuid(Uuid::from_bytes(id))))
    }
}
