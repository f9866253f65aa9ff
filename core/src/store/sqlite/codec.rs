//! Values between SQLite and us: declared column types decide how a stored value is read.
//!
//! A column declared `JSON` has numeric affinity: SQLite keeps a document that is a bare number as a number, with fifteen
//! digits. It is read as JSON all the same. Declared `JSON TEXT`, a column keeps every document as it was written.

use std::sync::Arc;

use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Statement, ToSql};
use serde::de::DeserializeOwned;

use crate::model::{Columns, Value};
use crate::store::{Row, SqlError, StoreError};

/// How values of a column are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// As SQLite stores them.
    Stored,
    /// A column declared BOOLEAN: 0 and 1 are bools.
    Bool,
    /// A column declared JSON or JSON TEXT: text is JSON, and so is a number.
    Json,
}

impl Reading {
    pub(super) fn of_declared_type(declared: Option<&str>) -> Self {
        match declared.map(str::to_ascii_uppercase).as_deref() {
            Some("BOOLEAN" | "BOOL") => Self::Bool,
            Some("JSON" | "JSONB" | "JSON TEXT") => Self::Json,
            _ => Self::Stored,
        }
    }

    pub(super) fn read(self, stored: ValueRef<'_>) -> Result<Value, StoreError> {
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| StoreError::Damaged { what: "text that is not UTF-8" })
        };
        Ok(match (self, stored) {
            (_, ValueRef::Null) => Value::Null,
            (Self::Bool, ValueRef::Integer(0)) => Value::Bool(false),
            (Self::Bool, ValueRef::Integer(1)) => Value::Bool(true),
            (Self::Json, ValueRef::Integer(n)) => Value::Json(n.to_string()),
            (Self::Json, ValueRef::Real(r)) if r.is_finite() => Value::Json(format!("{r:?}")),
            (_, ValueRef::Integer(n)) => Value::Integer(n),
            (_, ValueRef::Real(r)) => Value::Real(r),
            (Self::Json, ValueRef::Text(json)) => Value::Json(text(json)?),
            (_, ValueRef::Text(bytes)) => Value::Text(text(bytes)?),
            (_, ValueRef::Blob(bytes)) => Value::Bytes(bytes.to_vec()),
        })
    }
}

/// A value on its way into SQLite. NaN was refused before.
pub(super) struct Bound<'a>(pub(super) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self.0 {
            Value::Null => ValueRef::Null,
            Value::Bool(b) => ValueRef::Integer((*b).into()),
            Value::Integer(n) => ValueRef::Integer(*n),
            Value::Real(r) => ValueRef::Real(*r),
            Value::Text(text) | Value::Json(text) => ValueRef::Text(text.as_bytes()),
            Value::Bytes(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// SQLite turns NaN into NULL without a word, so we refuse it with one.
pub(super) fn check_storable<'v>(values: impl IntoIterator<Item = &'v Value>) -> Result<(), SqlError> {
    let nan = values.into_iter().any(|value| matches!(value, Value::Real(r) if r.is_nan()));
    if nan { Err(SqlError::NotStorable { kind: "NaN" }) } else { Ok(()) }
}

/// Runs a prepared query to its end.
pub(super) fn read_rows(statement: &mut Statement<'_>, values: &[Value]) -> Result<Vec<Row>, SqlError> {
    check_storable(values)?;
    let names: Arc<[String]> = statement.column_names().map(str::to_owned).collect();
    let readings: Vec<Reading> =
        statement.columns().map(|column| Reading::of_declared_type(column.decl_type())).collect();
    let mut found = statement.query(rusqlite::params_from_iter(values.iter().map(Bound)))?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        let values = readings.iter().enumerate().map(|(index, reading)| {
            reading.read(row.get_ref(index)?).map_err(|error| SqlError::Database {
                code: rusqlite::ffi::SQLITE_MISMATCH,
                message: error.to_string(),
            })
        });
        rows.push(Row::new(Arc::clone(&names), values.collect::<Result<_, SqlError>>()?));
    }
    Ok(rows)
}

/// The stored form of columns and images.
pub(super) fn pack<T: serde::Serialize>(content: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(content).expect("BUG: column values always have a MessagePack form")
}

/// Reads [`pack`]'s form back.
pub(super) fn unpack<T: DeserializeOwned>(stored: &[u8], what: &'static str) -> Result<T, StoreError> {
    rmp_serde::from_slice(stored).map_err(|_| StoreError::Damaged { what })
}

/// The columns of a row effect before and after, only those that changed.
pub(super) type Image = (Columns, Columns);

impl From<rusqlite::Error> for SqlError {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(failure, message) => {
                Self::Database { code: failure.extended_code, message: message.unwrap_or_else(|| failure.to_string()) }
            }
            rusqlite::Error::SqlInputError { error, msg, .. } => {
                Self::Database { code: error.extended_code, message: msg }
            }
            other => Self::Database { code: rusqlite::ffi::SQLITE_ERROR, message: other.to_string() },
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        SqlError::from(error).into()
    }
}
