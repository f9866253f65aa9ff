//! What may be slow or surprising about one tracked table, whoever asks.

use sqlx_core::row::Row;
use sqlx_postgres::types::Oid;
use sqlx_postgres::{PgConnection, PgRow};
use synchrotron_core::model::TableName;

use super::{Finding, Level};
use crate::materialize::is_audience_indexed;
use crate::pg::query;
use crate::start::quoted;

/// The table that is looked at, and as whom its users act.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// As clients name it.
    pub(super) name: &'a TableName,
    /// As Postgres numbers it.
    pub(super) oid: Oid,
    /// Schema and name, quoted.
    pub(super) quoted: String,
    /// The role that users act as.
    pub(super) app_role: &'a str,
    /// Whether the functions of the schema `synchrotron` are there, which policies may ask.
    pub(super) founded: bool,
    /// Whether plain SQL writes are captured.
    pub(super) captured: bool,
}

impl Place<'_> {
    /// A finding about this table.
    pub(super) fn finding(
        &self,
        level: Level,
        kind: &'static str,
        what: impl Into<String>,
        remedy: Option<String>,
    ) -> Finding {
        Finding { level, kind, place: format!("table {}", self.name), what: what.into(), remedy }
    }
}

/// Its columns, indexes and triggers.
pub(super) async fn look(conn: &mut PgConnection, place: &Place<'_>) -> Result<Vec<Finding>, sqlx_core::Error> {
    let mut findings = Vec::new();
    if !is_audience_indexed(conn, place.oid).await? {
        let what = "no index begins with audience_key: snapshots and digests read the whole table";
        let remedy = format!("CREATE INDEX ON {} (audience_key);", place.quoted);
        findings.push(place.finding(Level::Warning, "no_audience_index", what, Some(remedy)));
    }
    columns(conn, place, &mut findings).await?;
    unique(conn, place, &mut findings).await?;
    triggers(conn, place, &mut findings).await?;
    if place.captured {
        owner(conn, place, &mut findings).await?;
    }
    Ok(findings)
}

/// Only its owner can put on the triggers that capture plain SQL writes.
async fn owner(
    conn: &mut PgConnection,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx_core::Error> {
    let row = query(
        "/* check.owner */ SELECT pg_has_role(c.relowner, 'USAGE') OR EXISTS (SELECT FROM pg_catalog.pg_trigger t \
         WHERE t.tgrelid = c.oid AND t.tgname = 'synchrotron_capture'), current_user::text \
         FROM pg_catalog.pg_class c WHERE c.oid = $1",
    )
    .bind(place.oid)
    .fetch_one(conn)
    .await?;
    let (able, server_role): (bool, &str) = (row.get(0), row.get(1));
    if !able {
        let what =
            format!("the server's role {server_role} does not own it, and cannot capture plain SQL writes to it");
        let remedy = format!("ALTER TABLE {} OWNER TO {};", place.quoted, quoted(server_role));
        findings.push(place.finding(Level::Error, "no_capture", what, Some(remedy)));
    }
    Ok(())
}

async fn columns(
    conn: &mut PgConnection,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx_core::Error> {
    let rows = query(
        "/* check.columns */ SELECT a.attname::text, a.attnotnull, quote_ident(l.collname), l.collisdeterministic, \
         l.collprovider = 'i' OR NOT l.collisdeterministic \
         FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation \
         WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
    )
    .bind(place.oid)
    .fetch_all(conn)
    .await?;
    findings.extend(rows.iter().filter_map(|row| column(place, row)));
    Ok(())
}

fn column(place: &Place<'_>, row: &PgRow) -> Option<Finding> {
    let name: &str = row.get(0);
    if name == "audience_key" && !row.get::<bool, _>(1) {
        let what = "audience_key may be null: a row without it is in no audience and reaches no device";
        let remedy = format!("ALTER TABLE {} ALTER COLUMN audience_key SET NOT NULL;", place.quoted);
        return Some(place.finding(Level::Warning, "audience_key_nullable", what, Some(remedy)));
    }
    if name == "id" && row.get::<Option<bool>, _>(4) == Some(true) {
        let collation: &str = row.get(2);
        let why = if row.get(3) { "orders ids unlike devices do" } else { "takes different ids for the same" };
        let what = format!("the collation {collation} of id {why}");
        let remedy = format!("ALTER TABLE {} ALTER COLUMN id TYPE text COLLATE \"C\";", place.quoted);
        return Some(place.finding(Level::Warning, "id_collation", what, Some(remedy)));
    }
    None
}

async fn unique(
    conn: &mut PgConnection,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx_core::Error> {
    let rows = query(
        "/* check.unique */ SELECT c.relname::text FROM pg_catalog.pg_index i \
         JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid \
         WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion) AND NOT i.indisprimary ORDER BY 1",
    )
    .bind(place.oid)
    .fetch_all(conn)
    .await?;
    findings.extend(rows.iter().map(|row| {
        let what = format!(
            "{} allows a value once: of two devices that take it offline, the second one's action ends in quarantine, \
             unless its rule sees the value when it is replayed",
            row.get::<&str, _>(0)
        );
        place.finding(Level::Info, "unique", what, None)
    }));
    Ok(())
}

async fn triggers(
    conn: &mut PgConnection,
    place: &Place<'_>,
    findings: &mut Vec<Finding>,
) -> Result<(), sqlx_core::Error> {
    let rows = query(
        "/* check.triggers */ SELECT t.tgname::text FROM pg_catalog.pg_trigger t \
         JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
         WHERE t.tgrelid = $1 AND NOT t.tgisinternal AND t.tgenabled <> 'D' AND n.nspname <> 'synchrotron' ORDER BY 1",
    )
    .bind(place.oid)
    .fetch_all(conn)
    .await?;
    let effect = if place.captured {
        "what it changes in tracked tables reaches devices as plain SQL writes do"
    } else {
        "what it changes in tracked tables is in no record and reaches no device, for sql_writes is off"
    };
    findings.extend(rows.iter().map(|row| {
        let name: &str = row.get(0);
        let what =
            format!("trigger {name} runs for every upload, and again when something late folds a row anew; {effect}");
        place.finding(Level::Info, "trigger", what, None)
    }));
    Ok(())
}
