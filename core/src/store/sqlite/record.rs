//! Records on SQLite: how they, and the rows beside them, are read and written.

use rusqlite::types::ValueRef;
use rusqlite::{Params, Row as SqliteRow};
use uuid::Uuid;

use super::SqliteTxn;
use super::codec::unpack;
use super::rows::packed_columns;
use crate::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Hlc, Operation, Patch, RecordBody,
    ReplayKey, RowId, ServerIngestId, TableName, TraceParent, UserId,
};
use crate::store::log::UNSENT;
use crate::store::{Logged, StoreError, StoredRecord};

/// A query for records, in the order of columns that [`read_record`] reads.
macro_rules! records {
    ($rest:literal) => {
        concat!(
            "SELECT id, position_clock, position_client_id, position_action_id, clock, client_id, user_id, tag, args, ",
            "reason, server_ingest_id, row_count, executed, faithful, newest_through, ",
            "trace_parent FROM action_records ",
            $rest
        )
    };
}

/// A query for all records, with their rows, at the first position that compares so with a given one.
macro_rules! logged {
    ($compares:literal) => {
        concat!(
            "SELECT records.id, position_clock, position_client_id, position_action_id, clock, client_id, user_id, tag, ",
            "args, reason, server_ingest_id, row_count, executed, faithful, newest_through, ",
            "trace_parent, sequence, table_name, row_id, audience_key, operation, columns ",
            "FROM action_records AS records LEFT JOIN action_modified_rows AS rows ON rows.action_id = records.id ",
            "WHERE (position_clock, position_client_id, position_action_id) = (",
            "SELECT position_clock, position_client_id, position_action_id FROM action_records ",
            "WHERE (position_clock, position_client_id, position_action_id) ",
            $compares,
            " (?, ?, ?) ORDER BY position_clock, position_client_id, position_action_id LIMIT 1) ORDER BY records.id"
        )
    };
}

pub(super) use {logged, records};

/// Where the columns of a patch begin behind those of its record.
const RECORD_COLUMNS: usize = 16;
const NEWEST_COLUMN: usize = 14;

/// A position as SQL parameters, in the order of the index.
pub(super) type Position = (i64, [u8; 16], [u8; 16]);

pub(super) fn bound(position: ReplayKey) -> Position {
    let ReplayKey { clock, client_id, action_id } = position;
    (clock.packed(), *client_id.as_uuid().as_bytes(), *action_id.as_uuid().as_bytes())
}

fn damaged(what: &'static str) -> StoreError {
    StoreError::Damaged { what }
}

pub(super) fn read_position(row: &SqliteRow<'_>, first: usize) -> rusqlite::Result<ReplayKey> {
    Ok(ReplayKey {
        clock: Hlc::from_packed(row.get(first)?),
        client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(first + 1)?)),
        action_id: ActionId::from_uuid(Uuid::from_bytes(row.get(first + 2)?)),
    })
}

/// A record without its rows.
fn read_record(row: &SqliteRow<'_>) -> Result<StoredRecord, StoreError> {
    let body = match row.get::<_, Option<String>>(7)? {
        Some(tag) => RecordBody::Action {
            tag: ActionTag::new(tag).map_err(|_| damaged("action_records.tag"))?,
            args: ActionArgs::from_encoded(row.get(8)?).ok_or_else(|| damaged("action_records.args"))?,
        },
        None => RecordBody::Correction { amends: read_position(row, 1)?, reason: row.get(9)? },
    };
    Ok(StoredRecord {
        rows: Vec::new(),
        row_count: row.get(11)?,
        executed: row.get::<_, Option<[u8; 16]>>(12)?.map(Uuid::from_bytes),
        faithful: row.get(13)?,
        record: ActionRecord {
            id: ActionId::from_uuid(Uuid::from_bytes(row.get(0)?)),
            clock: Hlc::from_packed(row.get(4)?),
            client_id: ClientId::from_uuid(Uuid::from_bytes(row.get(5)?)),
            user_id: UserId::new(row.get::<_, String>(6)?).map_err(|_| damaged("action_records.user_id"))?,
            server_ingest_id: row.get::<_, Option<i64>>(10)?.map(ServerIngestId::new),
            body,
            trace_parent: read_trace(row, 15)?,
        },
    })
}

/// A trace, which is dropped where it is none: the record stands without it.
fn read_trace(row: &SqliteRow<'_>, column: usize) -> Result<Option<TraceParent>, StoreError> {
    let text = row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// A patch whose columns begin at `first`.
fn read_patch(row: &SqliteRow<'_>, first: usize) -> Result<Patch, StoreError> {
    let operation = row.get_ref(first + 4)?.as_str().map_err(rusqlite::Error::from)?;
    let columns = match row.get_ref(first + 5)?.as_blob_or_null().map_err(rusqlite::Error::from)? {
        Some(packed) => unpack(packed, "action_modified_rows.columns")?,
        None => Columns::new(),
    };
    Ok(Patch {
        sequence: row.get(first)?,
        table: TableName::new(row.get::<_, String>(first + 1)?).map_err(|_| damaged("table_name"))?,
        row_id: RowId::new(row.get::<_, String>(first + 2)?).map_err(|_| damaged("row_id"))?,
        audience_key: AudienceKey::new(row.get::<_, String>(first + 3)?).map_err(|_| damaged("audience_key"))?,
        effect: Operation::parse(operation).ok_or_else(|| damaged("operation"))?.with_columns(columns),
    })
}

impl SqliteTxn<'_> {
    pub(super) fn records_where(&self, sql: &str, params: impl Params) -> Result<Vec<StoredRecord>, StoreError> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut rows = statement.query(params)?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let mut stored = read_record(row)?;
            stored.rows = self.rows_of(stored.record.id)?;
            records.push(stored);
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
            patches.push(read_patch(row, 0)?);
        }
        Ok(patches)
    }

    pub(super) fn remove_rows(&self, id: ActionId) -> Result<(), StoreError> {
        self.transaction
            .prepare_cached("DELETE FROM action_modified_rows WHERE action_id = ?")?
            .execute([id.as_uuid().as_bytes()])?;
        Ok(())
    }

    /// Adds the rows of a record that has none yet.
    pub(super) fn add_rows(&self, id: ActionId, rows: &[Patch]) -> Result<(), StoreError> {
        let action_id = id.as_uuid().as_bytes();
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

    /// Adds a record without its rows; false if it is there already.
    pub(super) fn add_record(&self, stored: &StoredRecord) -> Result<bool, StoreError> {
        let record = &stored.record;
        let (clock, client_id, action_id) = bound(record.position());
        let (tag, args, reason) = match &record.body {
            RecordBody::Action { tag, args } => (Some(tag.as_str()), Some(args.as_bytes()), None),
            RecordBody::Correction { reason, .. } => (None, None, reason.as_deref()),
        };
        let arrived = record.server_ingest_id.map(ServerIngestId::get);
        let added = self
            .transaction
            .prepare_cached(
                "INSERT INTO action_records (id, position_clock, position_client_id, position_action_id, clock, \
                 client_id, user_id, tag, args, reason, server_ingest_id, row_count, executed, faithful, \
                 newest_through, trace_parent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
                 ON CONFLICT (id) DO NOTHING",
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
                arrived,
                stored.row_count,
                stored.executed.map(Uuid::into_bytes),
                stored.faithful,
                arrived.unwrap_or(UNSENT),
                record.trace_parent.map(|trace_parent| trace_parent.to_string()),
            ])?;
        Ok(added > 0)
    }

    /// All that one of the queries made by `logged!` finds.
    pub(super) fn logged(&self, sql: &str, from: ReplayKey) -> Result<Option<Logged>, StoreError> {
        let mut statement = self.transaction.prepare_cached(sql)?;
        let mut found = statement.query(bound(from))?;
        let mut logged: Option<Logged> = None;
        let mut records: Vec<StoredRecord> = Vec::new();
        while let Some(row) = found.next()? {
            let newest = row.get(NEWEST_COLUMN)?;
            let logged = match &mut logged {
                Some(logged) => logged,
                None => logged.insert(Logged {
                    position: read_position(row, 1)?,
                    action: None,
                    corrections: Vec::new(),
                    newest: Some(newest),
                }),
            };
            logged.newest = logged.newest.filter(|agreed| *agreed == newest);
            let id: [u8; 16] = row.get(0)?;
            if records.last().is_none_or(|last| *last.record.id.as_uuid().as_bytes() != id) {
                records.push(read_record(row)?);
            }
            if row.get_ref(RECORD_COLUMNS)? != ValueRef::Null {
                let patch = read_patch(row, RECORD_COLUMNS)?;
                records.last_mut().expect("BUG: it was just pushed").rows.push(patch);
            }
        }
        if let Some(logged) = &mut logged {
            for mut stored in records {
                stored.rows.sort_by_key(|row| row.sequence);
                if stored.record.id == logged.position.action_id {
                    logged.action = Some(stored);
                } else {
                    logged.corrections.push(stored);
                }
            }
        }
        Ok(logged)
    }
}
