//! Rows of the log as model types.
//!
//! Place in the journey: between Postgres and everything that hands records on (fetch, outbox). What a caller sees is
//! decided by the role that its transaction acts as, not here.

use std::collections::HashMap;

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{
    ActionArgs, ActionId, ActionRecord, ActionTag, AudienceKey, ClientId, Columns, Hlc, IdError, Operation, Patch,
    RecordBody, ReplayKey, RowId, ServerIngestId, SliceTag, TableName, UserId,
};
use synchrotron_core::wire::LogRecord;
use uuid::Uuid;

use super::query;

/// Stored bytes or names that this build cannot read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredFormError {
    /// Columns are no MessagePack map of values.
    #[error("stored columns are unreadable: {0}")]
    Columns(#[from] rmp_serde::decode::Error),
    /// A stored text is no id of its kind.
    #[error("stored id is unreadable: {0}")]
    Id(#[from] IdError),
    /// A stored name, number or argument is not one of this build's.
    #[error("stored {field} is unreadable")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

impl From<StoredFormError> for sqlx_core::Error {
    fn from(error: StoredFormError) -> Self {
        Self::Decode(Box::new(error))
    }
}

/// Columns as stored.
pub(crate) fn encode_columns(columns: &Columns) -> Vec<u8> {
    rmp_serde::to_vec_named(columns).expect("BUG: columns hold nothing that MessagePack cannot say")
}

/// Columns from their stored form.
pub(crate) fn decode_columns(bytes: &[u8]) -> Result<Columns, StoredFormError> {
    Ok(rmp_serde::from_slice(bytes)?)
}

/// Slice tags as stored.
pub(crate) fn encode_slices(tags: &[SliceTag]) -> Vec<u8> {
    rmp_serde::to_vec_named(tags).expect("BUG: tags hold nothing that MessagePack cannot say")
}

/// Reads records by their numbers, in order of number, each with those of its rows in these audiences that the acting
/// role sees.
pub(crate) async fn read_log(
    conn: &mut PgConnection,
    numbers: &[i64],
    audiences: &[String],
) -> Result<Vec<LogRecord>, sqlx_core::Error> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let rows = query(RECORDS).bind(numbers).fetch_all(&mut *conn).await?;
    let mut records = rows.iter().map(record_of).collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<Uuid> = records.iter().map(|record| *record.record.id.as_uuid()).collect();
    let places: HashMap<Uuid, usize> = ids.iter().copied().zip(0..).collect();
    let rows = query(ROWS).bind(&ids).bind(audiences).fetch_all(conn).await?;
    for row in &rows {
        if let Some(place) = places.get(&row.try_get("action_id")?) {
            records[*place].rows.push(patch_of(row)?);
        }
    }
    Ok(records)
}

/// A record with its rows, from a statement that selects `record_columns!` and, from `log_rows!`, `row_columns!`. Of few
/// records that saves a way there and back; of many, the arrays cost more than that.
pub(crate) fn log_record_of(row: &PgRow) -> Result<LogRecord, sqlx_core::Error> {
    let mut record = record_of(row)?;
    let Some(sequences) = row.try_get::<Option<Vec<i32>>, _>("sequences")? else { return Ok(record) };
    let texts = |name: &str| row.try_get::<Vec<String>, _>(name);
    let (tables, row_ids, audiences) = (texts("table_names")?, texts("row_ids")?, texts("audience_keys")?);
    let (operations, columns) = (texts("operations")?, row.try_get::<Vec<Vec<u8>>, _>("all_columns")?);
    let of_rows = sequences.into_iter().zip(tables).zip(row_ids).zip(audiences).zip(operations).zip(columns);
    for (((((sequence, table), row_id), audience), operation), columns) in of_rows {
        record.rows.push(patch(sequence, table, row_id, audience, &operation, &columns)?);
    }
    Ok(record)
}

fn record_of(row: &PgRow) -> Result<LogRecord, sqlx_core::Error> {
    let position = position_of(row)?;
    let unreadable = |field| move || StoredFormError::Field { field };
    let body = match row.try_get::<Option<String>, _>("tag")? {
        Some(tag) => RecordBody::Action {
            tag: ActionTag::new(tag).map_err(StoredFormError::from)?,
            args: ActionArgs::from_encoded(row.try_get("args")?).ok_or_else(unreadable("args"))?,
        },
        None => RecordBody::Correction { amends: position, reason: row.try_get("reason")? },
    };
    let slices = rmp_serde::from_slice(row.try_get("slices")?).map_err(|_| unreadable("slices")())?;
    Ok(LogRecord {
        record: ActionRecord {
            id: ActionId::from_uuid(row.try_get("id")?),
            clock: Hlc::from_packed(row.try_get("clock")?),
            client_id: ClientId::from_uuid(row.try_get("client_id")?),
            user_id: UserId::new(row.try_get::<String, _>("user_id")?).map_err(StoredFormError::from)?,
            server_ingest_id: Some(ServerIngestId::new(row.try_get("server_ingest_id")?)),
            body,
            // One that is none is dropped: the record stands without it.
            trace_parent: row.try_get::<Option<&str>, _>("trace_parent")?.and_then(|text| text.parse().ok()),
        },
        row_count: u32::try_from(row.try_get::<i32, _>("row_count")?).map_err(|_| unreadable("row_count")())?,
        slices,
        rows: Vec::new(),
    })
}

/// The position columns of a record or of a modified row.
pub(crate) fn position_of(row: &PgRow) -> Result<ReplayKey, sqlx_core::Error> {
    Ok(ReplayKey {
        clock: Hlc::from_packed(row.try_get("position_clock")?),
        client_id: ClientId::from_uuid(row.try_get("position_client_id")?),
        action_id: ActionId::from_uuid(row.try_get("position_action_id")?),
    })
}

/// Positions as the columns of a statement.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// Packed clocks.
    pub(crate) clocks: Vec<i64>,
    /// Devices.
    pub(crate) clients: Vec<Uuid>,
    /// Actions.
    pub(crate) actions: Vec<Uuid>,
}

impl Positions {
    /// One after the other.
    pub(crate) fn of<'a>(positions: impl IntoIterator<Item = &'a ReplayKey>) -> Self {
        let mut columns = Self::default();
        for position in positions {
            columns.clocks.push(position.clock.packed());
            columns.clients.push(*position.client_id.as_uuid());
            columns.actions.push(*position.action_id.as_uuid());
        }
        columns
    }
}

/// A modified row.
pub(crate) fn patch_of(row: &PgRow) -> Result<Patch, sqlx_core::Error> {
    let text = |name: &str| row.try_get::<String, _>(name);
    let (table, row_id, audience) = (text("table_name")?, text("row_id")?, text("audience_key")?);
    let (operation, columns) = (row.try_get("operation")?, row.try_get("columns")?);
    Ok(patch(row.try_get("sequence")?, table, row_id, audience, operation, columns)?)
}

fn patch(
    sequence: i32,
    table: String,
    row_id: String,
    audience_key: String,
    operation: &str,
    columns: &[u8],
) -> Result<Patch, StoredFormError> {
    let operation = Operation::parse(operation).ok_or(StoredFormError::Field { field: "operation" })?;
    Ok(Patch {
        sequence: u32::try_from(sequence).map_err(|_| StoredFormError::Field { field: "sequence" })?,
        table: TableName::new(table)?,
        row_id: RowId::new(row_id)?,
        audience_key: AudienceKey::new(audience_key)?,
        effect: operation.with_columns(decode_columns(columns)?),
    })
}

/// Columns of a record `r`.
macro_rules! record_columns {
    () => {
        "r.id, r.clock, r.client_id, r.user_id, r.server_ingest_id, r.tag, r.args, r.reason, r.position_clock, \
         r.position_client_id, r.position_action_id, r.row_count, r.slices, r.trace_parent"
    };
}

/// Columns of its rows `m`.
macro_rules! row_columns {
    () => {
        "m.sequences, m.table_names, m.row_ids, m.audience_keys, m.operations, m.all_columns"
    };
}

/// The rows `m` of a record `r` in its audience, as one row of arrays.
macro_rules! log_rows {
    () => {
        "(SELECT array_agg(m.sequence) AS sequences, array_agg(m.table_name) AS table_names, \
         array_agg(m.row_id) AS row_ids, array_agg(m.audience_key) AS audience_keys, \
         array_agg(m.operation) AS operations, array_agg(m.columns) AS all_columns \
         FROM (SELECT * FROM synchrotron.action_modified_rows m \
             WHERE m.action_id = r.id AND m.audience_key = r.audience_key ORDER BY m.sequence) m) m"
    };
}

pub(crate) use {log_rows, record_columns, row_columns};

/// Records by number.
pub(crate) const RECORDS: &str = concat!(
    "/* log.records */ SELECT ",
    record_columns!(),
    " FROM synchrotron.action_records r WHERE r.server_ingest_id = ANY($1) ORDER BY r.server_ingest_id"
);

/// Rows of records, in some audiences.
pub(crate) const ROWS: &str = "/* log.rows */ SELECT action_id, sequence, table_name, row_id, audience_key, operation, columns \
    FROM synchrotron.action_modified_rows WHERE action_id = ANY($1) AND audience_key = ANY($2) \
    ORDER BY action_id, sequence";
