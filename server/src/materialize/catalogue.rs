//! The tracked tables as Postgres has them: the only source of identifiers and types in statements.
//!
//! Place in the journey: read once at start; a table or column that is not in here does not exist for uploads. A schema
//! change of the app needs a restart of the server to be seen.

use std::collections::BTreeMap;

use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_postgres::types::Oid;
use sqlx_postgres::{PgConnection, PgPool};
use synchrotron_core::model::TableName;

use super::forms::Form;
use crate::StartError;
use crate::pg::query;
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
    /// Type of the column `id`.
    pub(crate) id_type: IdType,
    /// Whether it has, or is named by, constraints that may be checked as late as at commit.
    pub(crate) deferrable: bool,
    /// Whether Postgres computes `audience_key`.
    pub(crate) audience_generated: bool,
    /// All other columns by name.
    pub(crate) columns: BTreeMap<String, Column>,
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

/// The columns of a table with their types, and of a domain the type beneath.
const COLUMNS: &str = "/* catalogue.columns */ SELECT a.attname::text, quote_ident(a.attname), \
    format_type(a.atttypid, -1), a.attgenerated = '' AND a.attidentity <> 'a', b.typcategory::text, b.oid \
    FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ( \
        WITH RECURSIVE beneath AS (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
            UNION ALL SELECT t.* FROM beneath d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd') \
        SELECT oid, typcategory FROM beneath WHERE typtype <> 'd') b \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

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

    /// Whether any table has constraints that may be checked as late as at commit.
    pub(crate) fn has_deferrable(&self) -> bool {
        self.tables.values().any(|table| table.deferrable)
    }

    /// Reads the catalogue and checks that every table can be tracked safely.
    pub(crate) async fn load(pool: &PgPool, settings: &Settings) -> Result<Self, StartError> {
        let mut conn = pool.acquire().await.map_err(StartError::doing("connect"))?;
        let mut tables = BTreeMap::new();
        for name in &settings.tables {
            tables.insert(name.clone(), load_table(&mut conn, name, &settings.app_role).await?);
        }
        Ok(Self { tables })
    }
}

async fn load_table(conn: &mut PgConnection, name: &TableName, app_role: &str) -> Result<Table, StartError> {
    let found = query(
        "/* catalogue.table */ SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
         c.relkind IN ('r', 'p'), n.nspname IN ('synchrotron', 'pg_catalog', 'information_schema'), \
         row_security_active(c.oid), current_user::text, pg_has_role($2, c.relowner, 'USAGE'), c.relrowsecurity, \
         pg_relation_size(c.oid), \
         EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.condeferrable AND c.oid IN (k.conrelid, k.confrelid)) \
         OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND t.tgrelid = c.oid) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = to_regclass(quote_ident($1))",
    )
    .bind(name.as_str())
    .bind(app_role)
    .fetch_optional(&mut *conn)
    .await
    .map_err(StartError::doing("look for a tracked table"))?
    .ok_or_else(|| StartError::NoTable { table: name.clone() })?;
    let not_trackable = |found| StartError::NotTrackable { table: name.clone(), found };
    if found.get(3) {
        return Err(not_trackable("a table of the server or of Postgres itself"));
    }
    if !found.get::<bool, _>(2) {
        return Err(not_trackable("no table"));
    }
    if found.get(4) {
        return Err(StartError::ServerRoleFiltered { table: name.clone(), role: found.get(5) });
    }
    if found.get(6) {
        return Err(StartError::AppRoleUnbound { role: app_role.to_owned() });
    }
    if !found.get::<bool, _>(7) {
        tracing::warn!(table = %name, "row level security is not enabled on a tracked table: any user may write any row");
    }
    let oid: Oid = found.get(0);
    let id_type = load_id_type(conn, name, oid).await?;
    let mut columns = load_columns(conn, oid).await.map_err(StartError::doing("read a table's columns"))?;
    columns.remove("id");
    let audience = columns.remove("audience_key").filter(|column| column.cast == "text");
    let audience = audience.ok_or_else(|| StartError::NoAudienceKey { table: name.clone() })?;
    let table = Table {
        quoted: found.get(1),
        id_type,
        deferrable: found.get(9),
        audience_generated: !audience.writable,
        columns,
    };
    let indexed = is_audience_indexed(conn, oid).await.map_err(StartError::doing("read a table's indexes"))?;
    if !indexed && found.get::<i64, _>(8) > TINY_BYTES {
        let hint = format!("CREATE INDEX ON {} (audience_key)", table.quoted);
        tracing::warn!(table = %name, hint, "no index begins with audience_key: snapshots and digests read the whole table");
    }
    Ok(table)
}

/// Whether an index finds the rows of an audience.
pub(crate) async fn is_audience_indexed(conn: &mut PgConnection, oid: Oid) -> Result<bool, sqlx_core::Error> {
    let found = query(
        "/* catalogue.index */ SELECT EXISTS (SELECT FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0] \
         WHERE i.indrelid = $1 AND a.attname = 'audience_key' AND i.indisvalid AND i.indpred IS NULL)",
    )
    .bind(oid)
    .fetch_one(conn)
    .await?;
    found.try_get(0)
}

async fn load_id_type(conn: &mut PgConnection, name: &TableName, oid: Oid) -> Result<IdType, StartError> {
    let key = query(
        "/* catalogue.key */ SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) \
         WHERE i.indrelid = $1 AND i.indisprimary ORDER BY a.attnum",
    )
    .bind(oid)
    .fetch_all(conn)
    .await
    .map_err(StartError::doing("read a table's primary key"))?;
    let key: Vec<(String, String)> = key.iter().map(|row| (row.get(0), row.get(1))).collect();
    match key.iter().map(|(column, kind)| (column.as_str(), kind.as_str())).collect::<Vec<_>>()[..] {
        [("id", "text")] => Ok(IdType::Text),
        [("id", "uuid")] => Ok(IdType::Uuid),
        _ => {
            let found = key.iter().map(|(column, kind)| format!("{column} {kind}")).collect::<Vec<_>>().join(", ");
            Err(StartError::PrimaryKey { table: name.clone(), found })
        }
    }
}

async fn load_columns(conn: &mut PgConnection, oid: Oid) -> Result<BTreeMap<String, Column>, sqlx_core::Error> {
    let mut tx = conn.begin().await?;
    // With an empty path, format_type() qualifies every type that is not Postgres's own.
    query("/* catalogue.path */ SELECT set_config('search_path', '', true)").execute(&mut *tx).await?;
    let rows = query(COLUMNS).bind(oid).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    let column = |row: &sqlx_postgres::PgRow| {
        let form = Form::of_type(row.get(5));
        let class = match row.get(4) {
            "B" => Class::Bool,
            "S" => Class::Text,
            _ if form == Form::Bytes => Class::Bytes,
            _ => Class::Other,
        };
        Column { quoted: row.get(1), cast: row.get(2), class, form, writable: row.get(3) }
    };
    Ok(rows.iter().map(|row| (row.get(0), column(row))).collect())
}
