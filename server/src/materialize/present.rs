//! Rows as they are in the tables now, in the forms that devices know.
//!
//! Place in the journey: beneath snapshots and digests, which send rows, and [`super::images`], which keeps them.
//! Which rows are seen is decided by the role that the transaction acts as.

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Columns, RowId};

use super::catalogue::Table;
use super::fold::Folded;
use crate::pg::StoredFormError;

/// What a query selects to see rows whole: id, audience, and the columns that can be written.
pub(crate) fn selected(table: &Table) -> String {
    let mut selected = vec!["\"id\"::text".to_owned(), "\"audience_key\"::text".to_owned()];
    let columns = table.columns.values().filter(|column| column.writable);
    selected.extend(columns.map(|column| column.form.select(&column.quoted)));
    selected.join(", ")
}

/// The columns of a row that was [`selected`].
pub(crate) fn columns_of(table: &Table, row: &PgRow) -> Result<Columns, sqlx_core::Error> {
    let columns = table.columns.iter().filter(|(_, column)| column.writable).zip(2..);
    columns.map(|((name, column), index)| Ok((name.clone(), column.form.read(row, index)?))).collect()
}

/// Those of these rows that are there. A row whose audience nobody can name is not.
pub(crate) async fn rows_by_id(
    conn: &mut PgConnection,
    table: &Table,
    ids: &[&RowId],
) -> Result<Vec<(RowId, Folded)>, sqlx_core::Error> {
    let sql = format!(
        "/* present.rows */ SELECT {} FROM {} WHERE \"id\" = ANY($1::text[]::{}[])",
        selected(table),
        table.quoted,
        table.id_type.cast()
    );
    let ids: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    // Safe: built from catalogue identifiers only.
    let found = sqlx_core::query::query(AssertSqlSafe(sql)).bind(ids).fetch_all(conn).await?;
    let mut rows = Vec::with_capacity(found.len());
    for row in &found {
        let audience_key = row.try_get::<Option<String>, _>(1)?.and_then(|key| AudienceKey::new(key).ok());
        let Some(audience_key) = audience_key else { continue };
        let id = RowId::new(row.try_get::<String, _>(0)?).map_err(StoredFormError::from)?;
        rows.push((id, Folded { audience_key, columns: columns_of(table, row)? }));
    }
    Ok(rows)
}
