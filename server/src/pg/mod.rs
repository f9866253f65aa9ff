//! Postgres itself: schema versions, roles, error classes, and the log's rows as model types.
//!
//! Place in the journey: beneath every hop that touches the database. SQL lives in the hop that it serves; each
//! statement begins with its own name, which is what `pg_stat_activity` and the server's log show.

mod acting;
mod composite;
mod connect;
mod error;
mod log;
mod migrate;
mod words;

pub(crate) use acting::{Acting, Actor, act_as_server};
pub(crate) use composite::{Composite, composites, encode_position};
pub(crate) use connect::{
    admit, connect, connect_later, connect_once, lock_start, role_fault, version_fault, view_faults,
};
pub(crate) use error::{Complaint, classify};
pub(crate) use log::{
    Positions, StoredFormError, decode_columns, encode_columns, encode_slices, log_record_of, log_rows, patch_of,
    position_of, read_log, record_columns, row_columns,
};
#[cfg(test)]
pub(crate) use log::{RECORDS, ROWS};
pub use migrate::SchemaVersion;
pub(crate) use migrate::{SCHEMA_VERSION, applied, migrate, verify};
pub(crate) use words::{is_denied, migration_words, refusal, words};

use sqlx_postgres::{PgArguments, Postgres};

/// That a stored value is none of ours.
pub(crate) fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> sqlx_core::Error {
    sqlx_core::Error::Decode(Box::new(error))
}

/// A prepared statement of the server's own text.
pub(crate) fn query(sql: &'static str) -> sqlx_core::query::Query<'static, Postgres, PgArguments> {
    sqlx_core::query::query(sql)
}
