//! The statements that write one row of a tracked table.
//!
//! # Invariants
//! - Identifiers and type names come from the [`Catalogue`](super::catalogue::Catalogue), quoted by Postgres; everything
//!   that came over the wire is a bound parameter.
//! - A statement returns the row's real audience, or nothing if it matched no row.

use sqlx_core::query_scalar::query_scalar;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, Postgres};
use synchrotron_core::model::{AudienceKey, Columns, RowId};

use super::catalogue::{Column, Table};
use super::values::{takes, text_of};

/// A statement and its parameters, all of type text.
#[derive(Debug)]
pub(crate) struct Statement {
    sql: String,
    parameters: Vec<Option<String>>,
}

/// The columns to write, by their place in the catalogue.
pub(crate) type Assignments<'t> = Vec<(&'t Column, Option<String>)>;

/// Pairs values with their columns. Columns that the table does not have (any more), and values that they do not take,
/// are left out: uploads were checked before, and accepted history is never judged again.
pub(crate) fn assignments<'t>(table: &'t Table, columns: &Columns) -> Assignments<'t> {
    columns
        .iter()
        .filter_map(|(name, value)| table.columns.get(name).map(|column| (column, value)))
        .filter(|(column, value)| column.writable && takes(column.class, value))
        .map(|(column, value)| (column, text_of(value)))
        .collect()
}

/// Inserts a row unless its id is taken.
pub(crate) fn insert(table: &Table, row_id: &RowId, audience_key: &AudienceKey, values: Assignments<'_>) -> Statement {
    let mut names = vec!["\"id\"".to_owned()];
    let mut places = vec![format!("$1::text::{}", table.id_type.cast())];
    if !table.audience_generated {
        names.push("\"audience_key\"".to_owned());
        places.push("$2::text".to_owned());
    }
    let mut parameters = keys(row_id, audience_key);
    for (column, value) in values {
        parameters.push(value);
        names.push(column.quoted.clone());
        places.push(format!("${}::text::{}", parameters.len(), column.cast));
    }
    let sql = format!(
        "/* materialize.insert */ INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (\"id\") DO NOTHING \
         RETURNING \"audience_key\"::text",
        table.quoted,
        names.join(", "),
        places.join(", ")
    );
    Statement { sql, parameters }
}

/// Sets columns of the row that has this id in this audience, `reset` ones to their defaults.
pub(crate) fn update(
    table: &Table,
    row_id: &RowId,
    audience_key: &AudienceKey,
    values: Assignments<'_>,
    reset: &[&Column],
    new_audience: Option<&AudienceKey>,
) -> Statement {
    let mut parameters = keys(row_id, audience_key);
    let mut settings: Vec<String> = reset.iter().map(|column| format!("{} = DEFAULT", column.quoted)).collect();
    for (column, value) in values {
        parameters.push(value);
        settings.push(format!("{} = ${}::text::{}", column.quoted, parameters.len(), column.cast));
    }
    if let Some(new_audience) = new_audience.filter(|_| !table.audience_generated) {
        parameters.push(Some(new_audience.as_str().to_owned()));
        settings.push(format!("\"audience_key\" = ${}::text", parameters.len()));
    }
    if settings.is_empty() {
        // Changes nothing, but the policies are asked all the same.
        settings.push("\"id\" = \"id\"".to_owned());
    }
    let sql = format!(
        "/* materialize.update */ UPDATE {} SET {} WHERE \"id\" = $1::text::{} AND \"audience_key\" = $2::text \
         RETURNING \"audience_key\"::text",
        table.quoted,
        settings.join(", "),
        table.id_type.cast()
    );
    Statement { sql, parameters }
}

/// Removes the row that has this id in this audience.
pub(crate) fn delete(table: &Table, row_id: &RowId, audience_key: &AudienceKey) -> Statement {
    let sql = format!(
        "/* materialize.delete */ DELETE FROM {} WHERE \"id\" = $1::text::{} AND \"audience_key\" = $2::text \
         RETURNING \"audience_key\"::text",
        table.quoted,
        table.id_type.cast()
    );
    Statement { sql, parameters: keys(row_id, audience_key) }
}

/// Reads the audience of the row that has this id.
pub(crate) fn audience_of(table: &Table, row_id: &RowId) -> Statement {
    let sql = format!(
        "/* materialize.audience */ SELECT \"audience_key\"::text FROM {} WHERE \"id\" = $1::text::{}",
        table.quoted,
        table.id_type.cast()
    );
    Statement { sql, parameters: vec![Some(row_id.as_str().to_owned())] }
}

fn keys(row_id: &RowId, audience_key: &AudienceKey) -> Vec<Option<String>> {
    vec![Some(row_id.as_str().to_owned()), Some(audience_key.as_str().to_owned())]
}

impl Statement {
    /// Runs it: the audience of the row that it matched. A row without an audience has the empty one, which no patch can
    /// name.
    pub(crate) async fn run(self, conn: &mut PgConnection) -> Result<Option<String>, sqlx_core::Error> {
        // Safe: built above from catalogue identifiers only.
        let mut query = query_scalar::<Postgres, Option<String>>(AssertSqlSafe(self.sql));
        for parameter in self.parameters {
            query = query.bind(parameter);
        }
        Ok(query.fetch_optional(conn).await?.map(Option::unwrap_or_default))
    }
}
