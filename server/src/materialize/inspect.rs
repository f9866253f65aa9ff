//! One tracked table as Postgres has it, with everything that forbids tracking it.
//!
//! Place in the journey: a server that starts stops at the first fault; the command `check` tells them all. So what is
//! refused is decided once.

use std::collections::BTreeMap;

use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_postgres::types::Oid;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::TableName;

use super::catalogue::{Class, Column, IdType, Reference, Table};
use super::forms::Form;
use crate::StartError;
use crate::likeness;
use crate::pg::query;

/// What was found under a tracked table's name.
#[derive(Debug)]
pub(crate) struct Inspected {
    /// Postgres's number of the table, and its quoted name, if it is one that may be tracked at all.
    pub(crate) found: Option<(Oid, String)>,
    /// The table, if it has no faults.
    pub(crate) table: Option<Table>,
    /// Why it cannot be tracked.
    pub(crate) faults: Vec<StartError>,
}

/// The columns of a table with their types, and of a domain the type beneath; and whether that refuses all text, as the
/// types do in which Postgres keeps what it has computed (`pg_node_tree`, `pg_mcv_list` …); and whether a composite type is
/// what a column is, what it has elements of, or what any of these is a domain over.
const COLUMNS: &str = "/* catalogue.columns */ SELECT a.attname::text, quote_ident(a.attname), \
    format_type(a.atttypid, -1), a.attgenerated = '' AND a.attidentity <> 'a', b.typcategory::text, b.oid, \
    b.oid IN (194, 3361, 3402, 4600, 4601, 5017), EXISTS ( \
        WITH RECURSIVE inside AS (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
            UNION ALL SELECT t.* FROM inside o JOIN pg_catalog.pg_type t \
                ON t.oid = CASE o.typtype WHEN 'd' THEN o.typbasetype ELSE o.typelem END WHERE o.typtype IN ('b', 'd')) \
        SELECT FROM inside WHERE typtype = 'c') \
    FROM pg_catalog.pg_attribute a CROSS JOIN LATERAL ( \
        WITH RECURSIVE beneath AS (SELECT t.* FROM pg_catalog.pg_type t WHERE t.oid = a.atttypid \
            UNION ALL SELECT t.* FROM beneath d JOIN pg_catalog.pg_type t ON t.oid = d.typbasetype WHERE d.typtype = 'd') \
        SELECT oid, typcategory FROM beneath WHERE typtype <> 'd') b \
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped";

/// Looks for a tracked table and at everything that matters of it.
pub(crate) async fn inspect(
    conn: &mut PgConnection,
    name: &TableName,
    app_role: &str,
) -> Result<Inspected, StartError> {
    let row = query(
        "/* catalogue.table */ SELECT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
         c.relkind IN ('r', 'p'), n.nspname IN ('synchrotron', 'pg_catalog', 'information_schema'), \
         row_security_active(c.oid), current_user::text, \
         CASE WHEN to_regrole(quote_ident($2)) IS NOT NULL THEN pg_has_role($2, c.relowner, 'USAGE') END, \
         c.relrowsecurity, pg_relation_size(c.oid), \
         EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.condeferrable AND c.oid IN (k.conrelid, k.confrelid)) \
         OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND t.tgrelid = c.oid) \
         OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.condeferrable) AND ( \
            EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal \
                AND t.tgname NOT LIKE 'synchrotron\\_%') \
            OR EXISTS (SELECT FROM pg_catalog.pg_constraint k WHERE k.confrelid = c.oid AND k.confdeltype NOT IN ('a', 'r'))) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = to_regclass(quote_ident($1))",
    )
    .bind(name.as_str())
    .bind(app_role)
    .fetch_optional(&mut *conn)
    .await
    .map_err(StartError::doing("look for a tracked table"))?;
    let table = name.clone();
    let untracked = |fault| Ok(Inspected { found: None, table: None, faults: vec![fault] });
    let Some(row) = row else {
        let meant = similar(conn, name).await.map_err(StartError::doing("look for a tracked table"))?;
        return untracked(StartError::NoTable { table, meant });
    };
    if row.get(3) {
        let found = "a table of the server or of Postgres itself";
        return untracked(StartError::NotTrackable { table, found });
    }
    if !row.get::<bool, _>(2) {
        return untracked(StartError::NotTrackable { table, found: "no table" });
    }
    let mut faults = Vec::new();
    if row.get(4) {
        faults.push(StartError::ServerRoleFiltered { table: name.clone(), role: row.get(5) });
    }
    if row.get::<Option<bool>, _>(6) == Some(true) {
        faults.push(StartError::AppRoleOwns { role: app_role.to_owned(), table });
    }
    let table = read_table(conn, name, &row, &mut faults).await?;
    Ok(Inspected { found: Some((row.get(0), row.get(1))), table, faults })
}

/// The name of a table that is there and that somebody who wrote this one may have meant.
async fn similar(conn: &mut PgConnection, name: &TableName) -> Result<Option<String>, sqlx_core::Error> {
    let rows = query(
        "/* catalogue.names */ SELECT c.relname::text FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
         AND pg_table_is_visible(c.oid) AND n.nspname NOT IN ('synchrotron', 'pg_catalog', 'information_schema')",
    )
    .fetch_all(conn)
    .await?;
    let names = rows.iter().map(|row| row.get::<&str, _>(0));
    Ok(likeness::nearest(name.as_str(), names).map(str::to_owned))
}

/// The table, unless there is something to be added to its faults.
async fn read_table(
    conn: &mut PgConnection,
    name: &TableName,
    row: &PgRow,
    faults: &mut Vec<StartError>,
) -> Result<Option<Table>, StartError> {
    let oid: Oid = row.get(0);
    let id_type = load_id_type(conn, name, oid).await?.map_err(|fault| faults.push(fault)).ok();
    let rows = load_columns(conn, oid).await.map_err(StartError::doing("read a table's columns"))?;
    for unwritable in rows.iter().filter(|row| row.get(6)) {
        let (column, found) = (unwritable.get(0), unwritable.get(2));
        faults.push(StartError::ColumnType { table: name.clone(), column, found });
    }
    // The text of a composite value means something only together with the type's fields: after an ALTER TYPE, what the
    // log holds would no longer be read, or be read as something else.
    for composite in rows.iter().filter(|row| row.get(7) && row.get(3)) {
        let (column, column_type) = (composite.get(0), composite.get(2));
        faults.push(StartError::CompositeColumn { table: name.clone(), column, column_type });
    }
    let mut columns: BTreeMap<String, Column> = rows.iter().map(|row| (row.get(0), column_of(row))).collect();
    columns.remove("id");
    let audience = match columns.remove("audience_key") {
        Some(column) if column.cast == "text" => Some(column),
        other => {
            let found = other.map(|column| column.cast);
            faults.push(StartError::NoAudienceKey { table: name.clone(), found });
            None
        }
    };
    let indexed = is_audience_indexed(conn, oid).await.map_err(StartError::doing("read a table's indexes"))?;
    let references = load_references(conn, oid).await.map_err(StartError::doing("read a table's foreign keys"))?;
    let (Some(id_type), Some(audience), true) = (id_type, audience, faults.is_empty()) else { return Ok(None) };
    Ok(Some(Table {
        quoted: row.get(1),
        secured: row.get(7),
        indexed,
        bytes: row.get(8),
        id_type,
        deferrable: row.get(9),
        audience_generated: !audience.writable,
        columns,
        references,
    }))
}

async fn load_references(conn: &mut PgConnection, oid: Oid) -> Result<Vec<Reference>, sqlx_core::Error> {
    let found = query(
        "/* catalogue.references */ SELECT a.attname::text, quote_ident(n.nspname) || '.' || quote_ident(c.relname) \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.confrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = k.conkey[1] \
         JOIN pg_catalog.pg_attribute r ON r.attrelid = k.confrelid AND r.attnum = k.confkey[1] \
         WHERE k.conrelid = $1 AND k.contype = 'f' AND cardinality(k.conkey) = 1 AND r.attname = 'id'",
    )
    .bind(oid)
    .fetch_all(conn)
    .await?;
    found.iter().map(|row| Ok(Reference { column: row.try_get(0)?, table: row.try_get(1)? })).collect()
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

async fn load_id_type(
    conn: &mut PgConnection,
    name: &TableName,
    oid: Oid,
) -> Result<Result<IdType, StartError>, StartError> {
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
    Ok(match key.iter().map(|(column, kind)| (column.as_str(), kind.as_str())).collect::<Vec<_>>()[..] {
        [("id", "text")] => Ok(IdType::Text),
        [("id", "uuid")] => Ok(IdType::Uuid),
        _ => {
            let found = key.iter().map(|(column, kind)| format!("{column} {kind}")).collect::<Vec<_>>().join(", ");
            Err(StartError::PrimaryKey { table: name.clone(), found })
        }
    })
}

async fn load_columns(conn: &mut PgConnection, oid: Oid) -> Result<Vec<PgRow>, sqlx_core::Error> {
    let mut tx = conn.begin().await?;
    // With an empty path, format_type() qualifies every type that is not Postgres's own.
    query("/* catalogue.path */ SELECT set_config('search_path', '', true)").execute(&mut *tx).await?;
    let rows = query(COLUMNS).bind(oid).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(rows)
}

fn column_of(row: &PgRow) -> Column {
    let form = Form::of_type(row.get(5));
    let class = match row.get(4) {
        "B" => Class::Bool,
        "S" => Class::Text,
        _ if form == Form::Bytes => Class::Bytes,
        _ => Class::Other,
    };
    Column { quoted: row.get(1), cast: row.get(2), class, form, writable: row.get(3) }
}
