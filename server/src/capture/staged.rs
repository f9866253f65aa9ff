//! Staged row changes: taken out of their table, and gathered by row.
//!
//! Invariant: a row's changes are staged in the order in which they were committed, since its writers wait for each
//! other; so what is taken of a row is never later than what is left.

use std::collections::{BTreeMap, BTreeSet};

use sqlx_core::row::Row;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Operation, RowId, RowKey, TableName};

use crate::pg::{StoredFormError, query};

/// Takes the oldest staged changes of these tables; if the transaction ends otherwise than by a commit, they stay.
pub(crate) const TAKE: &str = "/* capture.take */ DELETE FROM synchrotron.staged_writes WHERE id = ANY (ARRAY( \
    SELECT id FROM synchrotron.staged_writes WHERE table_name = ANY($1) ORDER BY id LIMIT $2)) \
    RETURNING id, transaction_id::text, table_name, row_id, audience_key, operation, columns, echo";

/// A place in the order of staging.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The number of the staged change.
    pub(super) id: i64,
    /// The transaction that made it.
    pub(super) transaction: String,
}

/// What was written to a row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// All of it: it came to be.
    pub(super) whole: bool,
    /// These columns, beside.
    pub(super) columns: BTreeSet<String>,
}

/// What happened to a row while it was in one audience, after it was last removed from there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// By plain SQL.
    pub(super) direct: Option<Written>,
    /// Beneath the server, as it applied uploads.
    pub(super) echo: Option<Written>,
}

/// All staged changes of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StagedRow {
    /// The first of them.
    pub(super) first: Place,
    /// The last of them.
    pub(super) last: Place,
    /// By the audiences that the row was in before or after one of them.
    pub(super) audiences: BTreeMap<AudienceKey, Changes>,
}

/// What was taken.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// How many changes.
    pub(super) count: usize,
    /// The rows that they are about.
    pub(super) rows: BTreeMap<RowKey, StagedRow>,
}

/// Whether a plain SQL write to any of these rows is committed, and not in the log yet. It looks through all that is
/// staged, so it is for refusals only.
pub(crate) async fn is_staged(conn: &mut PgConnection, rows: &BTreeSet<RowKey>) -> Result<bool, sqlx_core::Error> {
    let staged = query(
        "/* capture.is_staged */ SELECT EXISTS (SELECT FROM synchrotron.staged_writes s \
         JOIN unnest($1::text[], $2::text[]) AS w(table_name, row_id) USING (table_name, row_id))",
    )
    .bind(rows.iter().map(|key| key.table.as_str()).collect::<Vec<_>>())
    .bind(rows.iter().map(|key| key.row_id.as_str()).collect::<Vec<_>>())
    .fetch_one(conn)
    .await?;
    staged.try_get(0)
}

struct StagedWrite {
    place: Place,
    row: RowKey,
    audience_key: AudienceKey,
    operation: Operation,
    columns: Vec<String>,
    echo: bool,
}

/// Takes at most `limit` changes.
pub(super) async fn take(conn: &mut PgConnection, tables: &[&str], limit: u32) -> Result<Taken, sqlx_core::Error> {
    let mut found = query(TAKE).bind(tables).bind(i64::from(limit)).fetch_all(conn).await?;
    found.sort_by_key(|row| row.get::<i64, _>("id"));
    let mut taken = Taken { count: found.len(), ..Taken::default() };
    let mut nowhere: BTreeMap<String, usize> = BTreeMap::new();
    for row in &found {
        match staged_write(row)? {
            Some(write) => taken.add(write),
            None => *nowhere.entry(row.try_get("table_name")?).or_default() += 1,
        }
    }
    for (table, rows) in nowhere {
        tracing::warn!(table, rows, "rows without a valid id and audience_key were written: they reach no device");
    }
    Ok(taken)
}

/// `None` for a row that no device can be told of: its id or its audience is none, or too long.
fn staged_write(row: &PgRow) -> Result<Option<StagedWrite>, sqlx_core::Error> {
    let table = TableName::new(row.try_get::<String, _>("table_name")?).map_err(StoredFormError::from)?;
    let row_id = RowId::new(row.try_get::<String, _>("row_id")?);
    let audience_key = AudienceKey::new(row.try_get::<Option<String>, _>("audience_key")?.unwrap_or_default());
    let (Ok(row_id), Ok(audience_key)) = (row_id, audience_key) else { return Ok(None) };
    let operation = Operation::parse(row.try_get("operation")?).ok_or(StoredFormError::Field { field: "operation" })?;
    Ok(Some(StagedWrite {
        place: Place { id: row.try_get("id")?, transaction: row.try_get("transaction_id")? },
        row: RowKey { table, row_id },
        audience_key,
        operation,
        columns: row.try_get("columns")?,
        echo: row.try_get("echo")?,
    }))
}

impl Taken {
    fn add(&mut self, write: StagedWrite) {
        let StagedWrite { place, row, audience_key, operation, columns, echo } = write;
        let staged = self.rows.entry(row).or_insert_with(|| StagedRow {
            first: place.clone(),
            last: place.clone(),
            audiences: BTreeMap::new(),
        });
        staged.last = place;
        let changes = staged.audiences.entry(audience_key).or_default();
        if operation == Operation::Delete {
            *changes = Changes::default();
            return;
        }
        let written = if echo { &mut changes.echo } else { &mut changes.direct }.get_or_insert_default();
        written.whole |= operation == Operation::Insert;
        written.columns.extend(columns);
    }

    /// The audiences that any of the rows was in.
    pub(super) fn audiences(&self) -> BTreeSet<&AudienceKey> {
        self.rows.values().flat_map(|row| row.audiences.keys()).collect()
    }
}
