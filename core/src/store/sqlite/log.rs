//! The action log on SQLite.

use rusqlite::{OptionalExtension, Params, Row as SqliteRow};
use uuid::Uuid;

use super::SqliteTxn;
use super::codec::unpack;
use super::rows::packed_columns;
use crate::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Hlc, Operation, Patch, RecordBody,
    ReplayKey, RowId, ServerIngestId, TableName, UserId,
};
use crate::store::log::UNSENT;
use crate::store::{LogStore, Logged, StoreError, StoredRecord};

const RECORD: &str = "SELECT id, position_clock, position_client_id, position_action_id, clock, client_id, user_id, \
                      tag, args, reason, server_ingest_id, row_count, executed, faithful FROM action_records";

/// A position as SQL parameters, in the order of the index.
type Position = (i64, [u8; 16], [u8; 16]);

fn bound(position: ReplayKey) -> Position {
    let ReplayKey { clock, client_id, action_id } = position;
    (clock.packed(), *client_id.as_uuid().as_bytes(), *action_id.as_uuid().as_bytes())
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

fn read_position(row: &SqliteRow<'_>, first: usize) -> rusqlite::Result<ReplayKey> {
    Ok(ReplayKey {
        clock: Hlc::from_packed(row.get(first)?),
        client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(first + 1)?)),
        action_id: ActionId::from_uuid(Uuid::from_bytes(row.get(first + 2)?)),
    })
}

impl SqliteTxn<'_> {
    fn read_record(&self, row: &SqliteRow<'_>) -> Result<StoredRecord, StoreError> {
        let id = ActionId::from_uuid(Uuid::from_bytes(row.get(0)?));
        let body = match row.get::<_, Option<String>>(7)? {
            Some(tag) => RecordBody::Action {
                tag: ActionTag::new(tag).map_err(|_| damaged("action_records.tag"))?,
                args: ActionArgs::from_encoded(row.get(8)?).ok_or_else(|| damaged("action_records.args"))?,
            },
            None => RecordBody::Correction { amends: read_position(row, 1)?, reason: row.get(9)? },
        };
        Ok(StoredRecord {
            rows: self.rows_of(id)?,
            row_count: row.get(11)?,
            executed: row.get::<_, Option<[u8; 16]>>(12)?.map(Uuid::from_bytes),
            faithful: row.get(13)?,
            record: ActionRecord {
                id,
                clock: Hlc::from_packed(row.get(4)?),
                client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(5)?)),
                user_id: UserId::new(row.get::<_, String>(6)?).map_err(|_| damaged("action_records.user_id"))?,
                server_ingest_id: row.get::<_, Option<i64>>(10)?.map(ServerIngestId::new),
                body,
            },
        })
    }

    fn records_where(&self, sql: &str, params: impl Params) -> Result<Vec<StoredRecord>, StoreError> {
        let mut statement = self.transaction.prepare_cached(&format!("{RECORD} {sql}"))?;
        let mut rows = statement.query(params)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            records.push(self.read_record(row)?);
        }
        Ok(records)
    }

    fn rows_of(&self, id: ActionId) -> Result<Vec<Patch>, StoreError> {
        let mut statement = self.transaction.prepare_cached(
            "SELECT sequence, table_name, row_id, audience_key, operation, columns FROM action_modified_rows \
             WHERE action_id = ? ORDER BY sequence",
        )?;
        let mut rows = statement.query([id.as_uuid().as_bytes()])?;
        let mut patches = Vec::new();
        while let Some(row) = rows.next()? {
            let operation: String = row.get(4)?;
            let columns = match row.get::<_, Option<Vec<u8>>>(5)? {
                Some(packed) => unpack(&packed, "action_modified_rows.columns")?,
                None => Columns::new(),
            };
            patches.push(Patch {
                sequence: row.get(0)?,
                table: TableName::new(row.get::<_, String>(1)?).map_err(|_| damaged("table_name"))?,
                row_id: RowId::new(row.get::<_, String>(2)?).map_err(|_| damaged("row_id"))?,
                audience_key: AudienceKey::new(row.get::<_, String>(3)?).map_err(|_| damaged("audience_key"))?,
                effect: Operation::parse(&operation).ok_or_else(|| damaged("operation"))?.with_columns(columns),
            });
        }
        Ok(patches)
    }

    /// Replaces a record's rows.
    fn put_rows(&self, id: ActionId, rows: &[Patch]) -> Result<(), StoreError> {
        let action_id = id.as_uuid().as_bytes();
        self.transaction
            .prepare_cached("DELETE FROM action_modified_rows WHERE action_id = ?")?
            .execute([action_id])?;
        let mut insert = self.transaction.prepare_cached(
            "INSERT INTO action_modified_rows (action_id, sequence, table_name, row_id, audience_key, operation, \
             columns) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        for row in rows {
            insert.execute(rusqlite::params![
                action_id,
                row.sequence,
                row.table.as_str(),
                row.row_id.as_str(),
                row.audience_key.as_str(),
                row.effect.operation().as_str(),
                packed_columns(&row.effect),
            ])?;
        }
        Ok(())
    }

    fn logged(&self, sql: &str, from: ReplayKey) -> Result<Option<Logged>, StoreError> {
        let position =
            self.transaction.prepare_cached(sql)?.query_row(bound(from), |row| read_position(row, 0)).optional()?;
        let Some(position) = position else { return Ok(None) };
        let records = self.records_where(
            "WHERE position_clock = ? AND position_client_id = ? AND position_action_id = ? ORDER BY id",
            bound(position),
        )?;
        let (mut actions, corrections): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|stored| stored.record.id == position.action_id);
        Ok(Some(Logged { position, action: actions.pop(), corrections }))
    }

    fn position(&self, sql: &str, params: impl Params) -> Result<Option<ReplayKey>, StoreError> {
        Ok(self.transaction.prepare_cached(sql)?.query_row(params, |row| read_position(row, 0)).optional()?)
    }
}

impl LogStore for SqliteTxn<'_> {
    fn put_record(&self, stored: &StoredRecord) -> Result<(), StoreError> {
        let record = &stored.record;
        let (clock, client_id, action_id) = bound(record.position());
        let (tag, args, reason) = match &record.body {
            RecordBody::Action { tag, args } => (Some(tag.as_str()), Some(args.as_bytes()), None),
            RecordBody::Correction { reason, .. } => (None, None, reason.as_deref()),
        };
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO action_records (id, position_clock, position_client_id, position_action_id, \
                 clock, client_id, user_id, tag, args, reason, server_ingest_id, row_count, executed, faithful) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(rusqlite::params![
                record.id.as_uuid().as_bytes(),
                clock,
                client_id,
                action_id,
                record.clock.packed(),
                record.client_id.as_uuid().as_bytes(),
                record.user_id.as_str(),
                tag,
                args,
                reason,
                record.server_ingest_id.map(ServerIngestId::get),
                stored.row_count,
                stored.executed.map(Uuid::into_bytes),
                stored.faithful,
            ])?;
        self.put_rows(record.id, &stored.rows)
    }

    fn remove_record(&self, id: ActionId) -> Result<(), StoreError> {
        let id = id.as_uuid().as_bytes();
        self.transaction.prepare_cached("DELETE FROM action_modified_rows WHERE action_id = ?")?.execute([id])?;
        self.transaction.prepare_cached("DELETE FROM action_records WHERE id = ?")?.execute([id])?;
        Ok(())
    }

    fn record(&self, id: ActionId) -> Result<Option<StoredRecord>, StoreError> {
        Ok(self.records_where("WHERE id = ?", [id.as_uuid().as_bytes()])?.pop())
    }

    fn put_patch(&self, id: ActionId, rows: &[Patch]) -> Result<(), StoreError> {
        self.put_rows(id, rows)?;
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

    fn remember_faithful(&self, id: ActionId, faithful: bool) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("UPDATE action_records SET faithful = ? WHERE id = ?")?
            .execute((faithful, id.as_uuid().as_bytes()))?;
        Ok(())
    }

    fn at_or_after(&self, from: ReplayKey) -> Result<Option<Logged>, StoreError> {
        self.logged(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             WHERE (position_clock, position_client_id, position_action_id) >= (?, ?, ?) \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            from,
        )
    }

    fn after(&self, position: ReplayKey) -> Result<Option<Logged>, StoreError> {
        self.logged(
            "SELECT position_clock, position_client_id, position_action_id FROM action_records \
             WHERE (position_clock, position_client_id, position_action_id) > (?, ?, ?) \
             ORDER BY position_clock, position_client_id, position_action_id LIMIT 1",
            position,
        )
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
                "WHERE server_ingest_id IS NULL \
                 ORDER BY position_clock, position_client_id, position_action_id, id LIMIT ?",
                [limit],
            );
        };
        let (clock, client_id, action_id) = bound(position);
        self.records_where(
            "WHERE server_ingest_id IS NULL \
             AND (position_clock, position_client_id, position_action_id, id) > (?, ?, ?, ?) \
             ORDER BY position_clock, position_client_id, position_action_id, id LIMIT ?",
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
                 WHERE client_id = ? AND tag IS NOT NULL",
            )?
            .execute([client_id.as_uuid().as_bytes()])?;
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
