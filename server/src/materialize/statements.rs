//! The statements that write rows of a tracked table: one for any number of rows that get the same columns.
//!
//! # Invariants
//! - Identifiers and type names come from the [`Catalogue`](super::catalogue::Catalogue), quoted by Postgres; everything
//!   that came over the wire is a bound parameter: one array of texts for each column.
//! - A statement returns each row that it matched, with its real audience.

use std::collections::HashMap;

use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::{AudienceKey, Columns, Effect, Operation, RowId, Value};

use super::catalogue::{Column, Table};
use super::values::{takes, text_of};

/// A statement and its parameters.
#[derive(Debug)]
pub(crate) struct Statement {
    sql: String,
    parameters: Vec<Vec<Option<String>>>,
}

/// Rows on which one statement works, and what their columns get.
#[derive(Debug)]
pub(crate) struct Targets<'t> {
    columns: Vec<&'t Column>,
    /// Ids, audiences, then a list of values for each column.
    parameters: Vec<Vec<Option<String>>>,
}

impl<'t> Targets<'t> {
    /// One row. Columns that the table does not have (any more), and values that they do not take, are left out: uploads
    /// were checked before, and accepted history is never judged again.
    pub(crate) fn one(table: &'t Table, row_id: &RowId, audience_key: &AudienceKey, values: &Columns) -> Self {
        let mut columns = Vec::new();
        let mut parameters = vec![vec![Some(row_id.as_str().to_owned())], vec![Some(audience_key.as_str().to_owned())]];
        for (_, column, value) in assigned(table, values) {
            columns.push(column);
            parameters.push(vec![text_of(value)]);
        }
        Self { columns, parameters }
    }

    /// Rows whose effects name the same columns.
    pub(crate) fn alike<'e>(
        table: &'t Table,
        mut effects: impl Iterator<Item = (&'e RowId, &'e AudienceKey, &'e Effect)>,
    ) -> Self {
        let none = Columns::new();
        let (row_id, audience_key, effect) = effects.next().expect("BUG: a run has an effect");
        let first = effect.columns().unwrap_or(&none);
        let names: Vec<&str> = assigned(table, first).map(|(name, ..)| name).collect();
        let mut all = Self::one(table, row_id, audience_key, first);
        for (row_id, audience_key, effect) in effects {
            let values = names.iter().map(|name| effect.columns()?.get(*name).and_then(text_of));
            let keys = [row_id.as_str(), audience_key.as_str()].map(|key| Some(key.to_owned()));
            for (parameter, value) in all.parameters.iter_mut().zip(keys.into_iter().chain(values)) {
                parameter.push(value);
            }
        }
        all
    }

    /// `unnest` of all parameters, as `d` with columns `id`, `audience`, `v0`, `v1`, …
    fn data(&self) -> String {
        let places: Vec<String> = (1..=self.parameters.len()).map(|n| format!("${n}::text[]")).collect();
        let names: Vec<String> = (0..self.columns.len()).map(|n| format!(", v{n}")).collect();
        format!("unnest({}) AS d(id, audience{})", places.join(", "), names.concat())
    }
}

/// The columns that are written of these values.
fn assigned<'t, 'v>(table: &'t Table, values: &'v Columns) -> impl Iterator<Item = (&'v str, &'t Column, &'v Value)> {
    values
        .iter()
        .filter_map(|(name, value)| table.columns.get(name).map(|column| (name.as_str(), column, value)))
        .filter(|(_, column, value)| column.writable && takes(column.class, value))
}

/// What becomes of a row whose id is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is left out.
    LeftOut,
    /// The statement fails. Postgres takes longer over rows that may be left out: it marks each, and confirms it.
    Fails,
}

/// The statement of an operation; nothing of the one that does nothing.
pub(super) fn statement_of(
    table: &Table,
    operation: Operation,
    targets: Targets<'_>,
    taken: Taken,
) -> Option<Statement> {
    match operation {
        Operation::Insert => Some(insert(table, targets, taken)),
        Operation::Update => Some(update(table, targets, &[], None)),
        Operation::Delete => Some(delete(table, targets)),
        Operation::Nothing => None,
    }
}

/// Inserts rows.
pub(crate) fn insert(table: &Table, rows: Targets<'_>, taken: Taken) -> Statement {
    let mut names = vec!["\"id\"".to_owned()];
    let mut values = vec![format!("d.id::{}", table.id_type.cast())];
    if !table.audience_generated {
        names.push("\"audience_key\"".to_owned());
        values.push("d.audience".to_owned());
    }
    for (index, column) in rows.columns.iter().enumerate() {
        names.push(column.quoted.clone());
        values.push(format!("d.v{index}::{}", column.cast));
    }
    let sql = format!(
        "/* materialize.insert */ INSERT INTO {} ({}) SELECT {} FROM {}{} \
         RETURNING \"id\"::text, \"audience_key\"::text",
        table.quoted,
        names.join(", "),
        values.join(", "),
        rows.data(),
        if taken == Taken::LeftOut { " ON CONFLICT (\"id\") DO NOTHING" } else { "" }
    );
    Statement { sql, parameters: rows.parameters }
}

/// Sets columns of the rows that have these ids in these audiences, `reset` ones to their defaults.
pub(crate) fn update(
    table: &Table,
    mut rows: Targets<'_>,
    reset: &[&Column],
    new_audience: Option<&AudienceKey>,
) -> Statement {
    let mut settings: Vec<String> = reset.iter().map(|column| format!("{} = DEFAULT", column.quoted)).collect();
    for (index, column) in rows.columns.iter().enumerate() {
        settings.push(format!("{} = d.v{index}::{}", column.quoted, column.cast));
    }
    let data = rows.data();
    if let Some(new_audience) = new_audience.filter(|_| !table.audience_generated) {
        rows.parameters.push(vec![Some(new_audience.as_str().to_owned())]);
        settings.push(format!("\"audience_key\" = (${}::text[])[1]", rows.parameters.len()));
    }
    if settings.is_empty() {
        // Changes nothing, but the policies are asked all the same.
        settings.push("\"id\" = t.\"id\"".to_owned());
    }
    let sql = format!(
        "/* materialize.update */ UPDATE {} AS t SET {} FROM {data} WHERE {} \
         RETURNING t.\"id\"::text, t.\"audience_key\"::text",
        table.quoted,
        settings.join(", "),
        targeted(table)
    );
    Statement { sql, parameters: rows.parameters }
}

/// Removes the rows that have these ids in these audiences.
pub(crate) fn delete(table: &Table, rows: Targets<'_>) -> Statement {
    let sql = format!(
        "/* materialize.delete */ DELETE FROM {} AS t USING {} WHERE {} \
         RETURNING t.\"id\"::text, t.\"audience_key\"::text",
        table.quoted,
        rows.data(),
        targeted(table)
    );
    Statement { sql, parameters: rows.parameters }
}

/// Finds the rows by the index of their ids, whatever the planner knows. A plan that is made while a table is small would as
/// gladly read the whole of it, or of an audience, and is kept while it grows: IS NOT DISTINCT FROM leaves it no other way.
fn targeted(table: &Table) -> String {
    let cast = table.id_type.cast();
    format!(
        "t.\"id\" = ANY($1::text[]::{cast}[]) AND t.\"id\" IS NOT DISTINCT FROM d.id::{cast} \
         AND t.\"audience_key\" IS NOT DISTINCT FROM d.audience"
    )
}

/// Reads the audiences of the rows that have these ids.
pub(crate) fn audiences_of<'r>(table: &Table, ids: impl Iterator<Item = &'r RowId>) -> Statement {
    let sql = format!(
        "/* materialize.audience */ SELECT \"id\"::text, \"audience_key\"::text FROM {} WHERE \"id\" = ANY($1::text[]::{}[])",
        table.quoted,
        table.id_type.cast()
    );
    Statement { sql, parameters: vec![ids.map(|id| Some(id.as_str().to_owned())).collect()] }
}

impl Statement {
    /// Its text, and its parameters.
    pub(super) fn into_parts(self) -> (String, Vec<Vec<Option<String>>>) {
        (self.sql, self.parameters)
    }

    /// Runs it: the audiences of the rows that it matched, by id. A row without an audience has the empty one, which no
    /// patch can name.
    pub(crate) async fn run(self, conn: &mut PgConnection) -> Result<HashMap<String, String>, sqlx_core::Error> {
        let matched = |row: &PgRow| Ok((row.try_get(0)?, row.try_get::<Option<String>, _>(1)?.unwrap_or_default()));
        // Safe: built above from catalogue identifiers only.
        let mut query = sqlx_core::query::query(AssertSqlSafe(self.sql));
        for parameter in self.parameters {
            query = query.bind(parameter);
        }
        query.fetch_all(conn).await?.iter().map(matched).collect()
    }

    /// Runs it on one row: its audience, or nothing if it matched none.
    pub(crate) async fn run_one(self, conn: &mut PgConnection) -> Result<Option<String>, sqlx_core::Error> {
        Ok(self.run(conn).await?.into_values().next())
    }
}
