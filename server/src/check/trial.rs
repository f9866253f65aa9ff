//! Whether a user's requests get through: what snapshots and uploads ask of each table, asked as a made-up user.
//!
//! The catalogue says what the role may do with a table. What the table's policies read beside it is asked for only when
//! they run, so they are run: without rows, in a transaction that is rolled back.

use sqlx_core::connection::Connection;
use sqlx_core::row::Row;
use sqlx_core::sql_str::AssertSqlSafe;
use sqlx_postgres::PgConnection;
use sqlx_postgres::types::Oid;
use synchrotron_core::model::UserId;

use super::table::Place;
use super::{Finding, Level};
use crate::StartError;
use crate::materialize::Table;
use crate::pg::{self, Acting, Actor, query, refusal};
use crate::snapshot::rows_of;
use crate::start::quoted;

/// Nobody, as whom the requests are tried.
const NOBODY: &str = "synchrotron check";

/// What the owner of a view, or a role that a table's policies bind, may not read of what they read.
const UNREADABLE: &str = "/* check.unreadable */ SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(c.relname), \
    quote_ident(r.reader) FROM ( \
        SELECT 'pg_policy'::regclass::oid, p.oid, $2::text FROM pg_catalog.pg_policy p WHERE p.polrelid = $1 \
        UNION ALL SELECT 'pg_rewrite'::regclass::oid, w.oid, pg_get_userbyid(v.relowner)::text \
            FROM pg_catalog.pg_rewrite w JOIN pg_catalog.pg_class v ON v.oid = w.ev_class WHERE v.oid = $1) \
        AS r(kind, oid, reader) \
    JOIN pg_catalog.pg_depend d ON d.classid = r.kind AND d.objid = r.oid AND d.refclassid = 'pg_class'::regclass \
    JOIN pg_catalog.pg_class c ON c.oid = d.refobjid AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE CASE d.refobjsubid WHEN 0 THEN NOT has_any_column_privilege(r.reader, c.oid, 'SELECT') \
        ELSE NOT has_column_privilege(r.reader, c.oid, d.refobjsubid::smallint, 'SELECT') END \
    ORDER BY 1";

/// Whether the role may insert, update and delete.
const GRANTED: &str = "/* check.granted */ SELECT has_any_column_privilege($2, $1, 'INSERT'), \
    has_column_privilege($2, $1, 'id', 'UPDATE'), has_table_privilege($2, $1, 'DELETE')";

/// What a session, a fetch and a snapshot begin with, as the server: a lookup in the app's view.
pub(super) async fn view(conn: &mut PgConnection, founded: bool) -> Result<Option<Finding>, sqlx_core::Error> {
    let lookup = if founded {
        query("/* check.audiences */ SELECT count(*) FROM synchrotron.audiences_of($1)")
    } else {
        query("/* check.audiences */ SELECT count(*) FROM synchrotron.user_audiences WHERE user_id = $1")
    };
    let Err(error) = lookup.bind(NOBODY).execute(&mut *conn).await else { return Ok(None) };
    let refused = refusal(error)?;
    let oid =
        query("/* check.view */ SELECT 'synchrotron.user_audiences'::regclass::oid").fetch_one(&mut *conn).await?;
    let missing = unreadable(conn, oid.get(0), "").await?;
    Ok(Some(Finding {
        level: Level::Error,
        kind: "user_audiences_denied",
        place: "view synchrotron.user_audiences".to_owned(),
        what: format!("it cannot be read, and every request reads it: {refused}"),
        remedy: grants(&missing),
    }))
}

/// Tries what users do with these tables.
pub(super) async fn tables(
    conn: &mut PgConnection,
    app_role: &str,
    founded: bool,
    tables: &[(Place<'_>, Table)],
) -> Result<Vec<Finding>, sqlx_core::Error> {
    let nobody = UserId::new(NOBODY).expect("BUG: it is a user's id");
    let mut tx = conn.begin().await?;
    let mut actor = match begin(&mut tx, &nobody, app_role, founded).await {
        Ok(actor) => actor,
        Err(error) => {
            let refused = refusal(error)?;
            tx.rollback().await?;
            // Before the first migration nobody was admitted yet.
            return Ok(if founded { vec![not_ours(conn, app_role, &refused).await?] } else { Vec::new() });
        }
    };
    let mut findings = Vec::new();
    if founded {
        findings.extend(uncallable(&mut actor).await?);
    }
    if findings.is_empty() {
        for (place, table) in tables {
            findings.extend(one(&mut actor, place, table).await?);
        }
    }
    tx.rollback().await?;
    Ok(findings)
}

/// Becomes the user, by the rights that a server gives the role when it starts.
async fn begin<'a>(
    conn: &'a mut PgConnection,
    nobody: &'a UserId,
    app_role: &'a str,
    founded: bool,
) -> Result<Actor<'a>, sqlx_core::Error> {
    if founded {
        pg::admit(conn, app_role).await?;
    }
    let mut actor = Actor::introduce(conn, nobody, app_role);
    actor.act_as(Acting::User).await?;
    Ok(actor)
}

async fn not_ours(conn: &mut PgConnection, app_role: &str, refused: &str) -> Result<Finding, sqlx_core::Error> {
    let server_role = query("/* check.me */ SELECT current_user::text").fetch_one(conn).await?.try_get(0)?;
    let fault = Finding::from(StartError::AppRoleNotOurs { role: app_role.to_owned(), server_role });
    Ok(Finding { what: format!("{}: {refused}", fault.what), ..fault })
}

/// That the log's policies, and the app's, may not ask for the user's audiences: Postgres lets everybody call a function,
/// unless it was told otherwise.
async fn uncallable(actor: &mut Actor<'_>) -> Result<Option<Finding>, sqlx_core::Error> {
    let asked = query("/* check.mine */ SELECT has_function_privilege('synchrotron.my_audiences()', 'EXECUTE')");
    if asked.fetch_one(&mut *actor.conn).await?.try_get(0)? {
        return Ok(None);
    }
    let app_role = actor.app_role();
    Ok(Some(Finding {
        level: Level::Error,
        kind: "my_audiences_denied",
        place: "function synchrotron.my_audiences()".to_owned(),
        what: format!("role {app_role} may not call it: users can fetch nothing"),
        remedy: Some(format!("GRANT EXECUTE ON FUNCTION synchrotron.my_audiences() TO {};", quoted(app_role))),
    }))
}

async fn one(actor: &mut Actor<'_>, place: &Place<'_>, table: &Table) -> Result<Option<Finding>, sqlx_core::Error> {
    let row = query(GRANTED).bind(place.oid).bind(place.app_role).fetch_one(&mut *actor.conn).await?;
    let mut refused: Vec<(&str, String)> = Vec::new();
    let select = AssertSqlSafe(format!("/* check.select */ {} LIMIT 0", rows_of(table)));
    let select = sqlx_core::query::query(select).bind(Vec::<String>::new());
    refused.extend(attempt(actor, select).await?.err().map(|why| ("SELECT", why)));
    let writes = [
        ("INSERT", format!("INSERT INTO {} DEFAULT VALUES", table.quoted)),
        ("UPDATE", format!("UPDATE {} SET id = id", table.quoted)),
        ("DELETE", format!("DELETE FROM {}", table.quoted)),
    ];
    for (index, (command, sql)) in writes.into_iter().enumerate() {
        if row.get::<bool, _>(index) {
            // Safe: built from catalogue identifiers only; and nothing is written, EXPLAIN asks for rights alone.
            let explain = sqlx_core::query::query(AssertSqlSafe(format!("/* check.explain */ EXPLAIN {sql}")));
            refused.extend(attempt(actor, explain).await?.err().map(|why| (command, why)));
        }
    }
    let Some((_, why)) = refused.first() else { return Ok(None) };
    let missing = unreadable(actor.conn, place.oid, place.app_role).await?;
    let commands = refused.iter().map(|(command, _)| *command).collect::<Vec<_>>().join(", ");
    let mut what = format!("role {} may {commands}, but the policies break: {why}", place.app_role);
    if missing.iter().any(|(relation, _)| relation == "synchrotron.user_audiences") {
        what.push_str("; a policy that asks for synchrotron.my_audiences() needs no grant");
    }
    Ok(Some(place.finding(Level::Error, "policy_denied", what, grants(&missing))))
}

/// Runs a statement as the user and takes it back; why Postgres refused, if it did.
async fn attempt(
    actor: &mut Actor<'_>,
    statement: sqlx_core::query::Query<'_, sqlx_postgres::Postgres, sqlx_postgres::PgArguments>,
) -> Result<Result<(), String>, sqlx_core::Error> {
    actor.begin_trial().await?;
    let done = statement.persistent(false).execute(&mut *actor.conn).await;
    let done = done.map(drop).map_err(refusal);
    actor.end_trial().await?;
    match done {
        Ok(()) => Ok(Ok(())),
        Err(refused) => refused.map(Err),
    }
}

async fn unreadable(
    conn: &mut PgConnection,
    oid: Oid,
    reader: &str,
) -> Result<Vec<(String, String)>, sqlx_core::Error> {
    let rows = query(UNREADABLE).bind(oid).bind(reader).fetch_all(conn).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn grants(missing: &[(String, String)]) -> Option<String> {
    let grants = missing.iter().map(|(relation, reader)| format!("GRANT SELECT ON {relation} TO {reader};"));
    Some(grants.collect::<Vec<_>>().join(" ")).filter(|grants| !grants.is_empty())
}
