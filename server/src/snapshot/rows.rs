//! The rows of some audiences, table by table, from a cursor of Postgres: each row is read once, in whatever order is
//! cheapest, and only a few at a time are here.
//!
//! Place in the journey: beneath [`super::chunks`] and [`super::digest`], in a transaction that acts as the user.

use std::sync::Arc;

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, RowId, TableName, Value};
use synchrotron_core::wire::SnapshotRow;

use crate::materialize::{Catalogue, Table, columns_of, selected};
use crate::pg::StoredFormError;

/// The most rows that are here at once. Fewer if they are large.
const FETCH_ROWS_MAX: usize = 64;
/// How many rows of a table are fetched while nothing is known of their size.
const FETCH_ROWS_FIRST: usize = 8;
/// The size of the rows that are here at once, as far as it can be foreseen.
const FETCH_BYTES: usize = 256 << 10;

/// Reads on from where it is.
#[derive(Debug)]
pub(super) struct Rows {
    catalogue: Arc<Catalogue>,
    audiences: Vec<String>,
    /// The table that is being read, by its place in the catalogue.
    table: usize,
    /// How many of its rows to fetch next; `None` until its cursor is open.
    fetch: Option<usize>,
}

impl Rows {
    pub(super) fn new<'a>(catalogue: Arc<Catalogue>, audiences: impl IntoIterator<Item = &'a AudienceKey>) -> Self {
        let audiences = audiences.into_iter().map(|key| key.as_str().to_owned()).collect();
        Self { catalogue, audiences, table: 0, fetch: None }
    }

    /// The next rows, each with a bound of its encoded size; none if there are no more.
    pub(super) async fn next(
        &mut self,
        conn: &mut PgConnection,
    ) -> Result<Vec<(SnapshotRow, usize)>, sqlx_core::Error> {
        let catalogue = Arc::clone(&self.catalogue);
        while let Some((name, table)) = catalogue.tables().nth(self.table) {
            let count = match self.fetch {
                Some(count) => count,
                None => self.open(conn, table).await?,
            };
            // Safe: numbers in words of ours.
            let sql = format!("/* snapshot.next */ FETCH {count} FROM {}", self.cursor());
            let found = sqlx_core::query::query(AssertSqlSafe(sql)).fetch_all(&mut *conn).await?;
            let rows = found.iter().map(|row| read(name, table, row)).collect::<Result<Vec<_>, _>>()?;
            self.fetch = Some(fetch_next(count, rows.iter().map(|(_, bytes)| *bytes).max().unwrap_or(0)));
            if rows.len() < count {
                let sql = format!("/* snapshot.close */ CLOSE {}", self.cursor());
                sqlx_core::query::query(AssertSqlSafe(sql)).execute(&mut *conn).await?;
                self.table += 1;
                self.fetch = None;
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    async fn open(&self, conn: &mut PgConnection, table: &Table) -> Result<usize, sqlx_core::Error> {
        let sql = format!("/* snapshot.open */ DECLARE {} NO SCROLL CURSOR FOR {}", self.cursor(), rows_of(table));
        // Safe: built from catalogue identifiers only.
        sqlx_core::query::query(AssertSqlSafe(sql)).bind(&self.audiences).execute(conn).await?;
        Ok(FETCH_ROWS_FIRST)
    }

    fn cursor(&self) -> String {
        format!("synchrotron_rows_{}", self.table)
    }
}

/// Twice as many as before, if even the largest so far would fit. Powers of two: each is a prepared statement.
fn fetch_next(count: usize, largest: usize) -> usize {
    let fit = (FETCH_BYTES / largest.max(1)).clamp(1, FETCH_ROWS_MAX);
    (count * 2).min(1 << fit.ilog2())
}

/// All rows of a table that are in some audiences, and visible.
pub(crate) fn rows_of(table: &Table) -> String {
    format!("SELECT {} FROM {} WHERE \"audience_key\" = ANY($1::text[])", selected(table), table.quoted)
}

fn read(name: &TableName, table: &Table, row: &PgRow) -> Result<(SnapshotRow, usize), sqlx_core::Error> {
    let row = SnapshotRow {
        table: name.clone(),
        row_id: RowId::new(row.try_get::<String, _>(0)?).map_err(StoredFormError::from)?,
        audience_key: AudienceKey::new(row.try_get::<String, _>(1)?).map_err(StoredFormError::from)?,
        columns: columns_of(table, row)?,
    };
    let bytes = encoded_bytes_max(&row);
    Ok((row, bytes))
}

/// What a length, a number or a marker takes at most.
const HEAD_BYTES: usize = 9;

/// A bound of the row's encoded size that costs less than encoding it.
fn encoded_bytes_max(row: &SnapshotRow) -> usize {
    let fields = ["table", "row_id", "audience_key", "columns"].map(|field| field.len() + 1);
    let keys = [row.table.as_str(), row.row_id.as_str(), row.audience_key.as_str()];
    let content = |value: &Value| match value {
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Real(_) => 0,
        Value::Text(text) | Value::Json(text) => text.len(),
        Value::Bytes(bytes) => bytes.len(),
    };
    fields.iter().sum::<usize>()
        + keys.iter().map(|key| HEAD_BYTES + key.len()).sum::<usize>()
        + row.columns.iter().map(|(name, value)| 2 * HEAD_BYTES + name.len() + content(value)).sum::<usize>()
        + 2 * HEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_row_is_larger_than_its_bound() {
        let values = [
            Value::Null,
            Value::Integer(i64::MIN),
            Value::Real(0.1),
            Value::Text("x".repeat(70_000)),
            Value::Json("{}".into()),
            Value::Bytes(vec![0; 300]),
        ];
        let columns = (0..).zip(values).map(|(index, value)| (format!("{index}"), value));
        let row = SnapshotRow {
            table: TableName::new("t").expect("ok"),
            row_id: RowId::new("r").expect("ok"),
            audience_key: AudienceKey::new("a").expect("ok"),
            columns: columns.collect(),
        };
        let bytes = rmp_serde::to_vec_named(&row).expect("encodes").len();
        assert!(bytes <= encoded_bytes_max(&row) && encoded_bytes_max(&row) < bytes + 200, "{bytes}");
    }

    #[test]
    fn large_rows_come_one_by_one() {
        assert_eq!(fetch_next(8, 100), 16);
        assert_eq!(fetch_next(64, 100), 64);
        assert_eq!(fetch_next(64, 100 << 10), 2);
        assert_eq!(fetch_next(8, 4 << 20), 1);
    }
}
