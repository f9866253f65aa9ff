//! The tracked tables as Postgres has them: the only source of identifiers and types in statements.
//!
//! Place in the journey: read once at start; a table or column that is not in here does not exist for uploads. A schema
//! change of the app needs a restart of the server to be seen.

use std::collections::BTreeMap;

use sqlx_postgres::PgPool;
use synchrotron_core::model::TableName;

use super::forms::Form;
use super::inspect::inspect;
use crate::StartError;
use crate::settings::Settings;

/// All tracked tables.
#[derive(Debug)]
pub(crate) struct Catalogue {
    tables: BTreeMap<TableName, Table>,
}

/// One tracked table.
#[derive(Debug)]
pub(crate) struct Table {
    /// Schema and name, quoted.
    pub(crate) quoted: String,
    /// Whether row level security is enabled.
    pub(crate) secured: bool,
    /// Whether an index finds the rows of an audience.
    pub(crate) indexed: bool,
    /// Its size, without indexes.
    pub(crate) bytes: i64,
    /// Type of the column `id`.
    pub(crate) id_type: IdType,
    /// Whether constraints may be checked as late as at commit: its own, those that name it, and those of tables that its
    /// triggers and cascades write to.
    pub(crate) deferrable: bool,
    /// Whether Postgres computes `audience_key`.
    pub(crate) audience_generated: bool,
    /// All other columns by name.
    pub(crate) columns: BTreeMap<String, Column>,
    /// Its foreign keys to the ids of other tables.
    pub(crate) references: Vec<Reference>,
}

/// A foreign key of one column to a table's `id`.
#[derive(Debug)]
pub(crate) struct Reference {
    /// The column's name.
    pub(crate) column: String,
    /// Schema and name of the table, quoted.
    pub(crate) table: String,
}

/// Type of a primary key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum IdType {
    /// `text`
    Text,
    /// `uuid`
    Uuid,
}

impl IdType {
    /// The type's name in a cast.
    pub(crate) const fn cast(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Uuid => "uuid",
        }
    }
}

/// One column.
#[derive(Debug)]
pub(crate) struct Column {
    /// The name, quoted.
    pub(crate) quoted: String,
    /// The type's qualified name for a cast, without length: assignment checks lengths, a cast would cut silently.
    pub(crate) cast: String,
    /// What kinds of value it takes.
    pub(crate) class: Class,
    /// What it is read as.
    pub(crate) form: Form,
    /// Whether it can be written; generated columns cannot.
    pub(crate) writable: bool,
}

/// A table of this size is read whole as fast as by an index.
const TINY_BYTES: i64 = 256 << 10;

/// What kinds of value a column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Boolean types.
    Bool,
    /// Character types.
    Text,
    /// `bytea`
    Bytes,
    /// Everything else: by its text form.
    Other,
}

impl Catalogue {
    /// The table of this name, if it is tracked.
    pub(crate) fn table(&self, name: &TableName) -> Option<&Table> {
        self.tables.get(name)
    }

    /// All of them, by name.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&TableName, &Table)> {
        self.tables.iter()
    }

    /// The tracked table of this schema and name, quoted.
    pub(crate) fn quoted_table(&self, quoted: &str) -> Option<(&TableName, &Table)> {
        self.tables().find(|(_, table)| table.quoted == quoted)
    }

    /// Whether any table has constraints that may be checked as late as at commit.
    pub(crate) fn has_deferrable(&self) -> bool {
        self.tables.values().any(|table| table.deferrable)
    }

    /// Reads the catalogue and checks that every table can be tracked safely.
    pub(crate) async fn load(pool: &PgPool, settings: &Settings) -> Result<Self, StartError> {
        let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
        let mut tables = BTreeMap::new();
        for name in &settings.tables {
            let inspected = inspect(&mut conn, name, &settings.app_role).await?;
            if let Some(fault) = inspected.faults.into_iter().next() {
                return Err(fault);
            }
            let table = inspected.table.expect("BUG: a table without faults was read");
            warn_of(name, &table);
            tables.insert(name.clone(), table);
        }
        Ok(Self { tables })
    }
}

/// What does not keep the server from starting, but should be mended.
fn warn_of(name: &TableName, table: &Table) {
    if !table.secured {
        tracing::warn!(table = %name, "row level security is not enabled on a tracked table: any user may write any row");
    }
    if !table.indexed && table.bytes > TINY_BYTES {
        let hint = format!("CREATE INDEX ON {} (audience_key)", table.quoted);
        tracing::warn!(table = %name, hint, "no index begins with audience_key: snapshots and digests read the whole table");
    }
}
