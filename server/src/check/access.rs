//! What users may do with one tracked table: grants, and policies.
//!
//! A command needs both. A policy that is missing is the harder one to see: Postgres then does nothing, and says nothing.

use sqlx_core::row::Row;
use sqlx_postgres::PgConnection;

use super::table::Place;
use super::{Finding, Level};
use crate::pg::query;
use crate::start::quoted;

/// For each command, whether the role has the right to it, and whether a policy permits any row. Snapshots read all columns.
const ACCESS: &str = "/* check.access */ SELECT c.command, \
    CASE c.command WHEN 'DELETE' THEN has_table_privilege($2, $1, 'DELETE') \
        WHEN 'SELECT' THEN NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 \
            AND NOT a.attisdropped AND NOT has_column_privilege($2, $1, a.attnum, 'SELECT')) \
        ELSE has_any_column_privilege($2, $1, c.command) END, \
    EXISTS (SELECT FROM pg_catalog.pg_policy p WHERE p.polrelid = $1 AND p.polpermissive \
        AND p.polcmd IN (c.letter, '*') AND EXISTS (SELECT FROM unnest(p.polroles) r \
            WHERE CASE WHEN r = 0 THEN true ELSE pg_has_role($2, r, 'USAGE') END)) \
    FROM (VALUES (1, 'SELECT', 'r'::\"char\"), (2, 'INSERT', 'a'), (3, 'UPDATE', 'w'), (4, 'DELETE', 'd')) \
        c (place, command, letter) ORDER BY c.place";

/// Looks at grants and policies for the role that users act as; and says whether it may read the table at all.
pub(super) async fn look(conn: &mut PgConnection, place: &Place<'_>) -> Result<(Vec<Finding>, bool), sqlx_core::Error> {
    let row = query(
        "/* check.schema */ SELECT c.relrowsecurity, has_schema_privilege($2, n.oid, 'USAGE'), quote_ident(n.nspname) \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
    )
    .bind(place.oid)
    .bind(place.app_role)
    .fetch_one(&mut *conn)
    .await?;
    let (secured, usable, schema): (bool, bool, String) = (row.get(0), row.get(1), row.get(2));
    let role = quoted(place.app_role);
    let mut findings = Vec::new();
    if !usable {
        let what = format!("role {} may not use the schema {schema}", place.app_role);
        let remedy = format!("GRANT USAGE ON SCHEMA {schema} TO {role};");
        findings.push(place.finding(Level::Error, "no_schema_grant", what, Some(remedy)));
    }
    if !secured {
        let what = "row level security is not enabled: any user may read and write any row";
        let remedy = format!("ALTER TABLE {} ENABLE ROW LEVEL SECURITY;", place.quoted);
        findings.push(place.finding(Level::Error, "no_row_level_security", what, Some(remedy)));
    }
    let mut readable = usable;
    let commands = query(ACCESS).bind(place.oid).bind(place.app_role).fetch_all(conn).await?;
    for row in &commands {
        let (command, granted, permitted): (&str, bool, bool) = (row.get(0), row.get(1), row.get(2));
        // Without SELECT nothing works at all; the others an app may withhold on purpose.
        let level = if command == "SELECT" { Level::Error } else { Level::Warning };
        if !granted {
            readable &= command != "SELECT";
            let what = format!("role {} has no right to {command}", place.app_role);
            let remedy = format!("GRANT {command} ON {} TO {role};", place.quoted);
            findings.push(place.finding(level, "no_grant", what, Some(remedy)));
        }
        if secured && !permitted {
            let what = format!("no policy lets role {} {command} any row: {}", place.app_role, silence(command));
            // What the policy would ask comes with the first migrations.
            let remedy = place.founded.then(|| policy(place, command));
            findings.push(place.finding(level, "no_policy", what, remedy));
        }
    }
    Ok((findings, readable))
}

/// What comes of a missing policy.
fn silence(command: &str) -> &'static str {
    match command {
        "SELECT" => "snapshots are empty, and updates find nothing",
        "INSERT" => "actions that insert end in quarantine",
        "UPDATE" => "actions that update end in quarantine",
        _ => "actions that delete end in quarantine",
    }
}

/// A policy by membership; an app may want a narrower one.
fn policy(place: &Place<'_>, command: &str) -> String {
    let mine = "(audience_key IN (SELECT synchrotron.my_audiences()))";
    let clause = if command == "INSERT" { "WITH CHECK" } else { "USING" };
    let name = format!("members_{}", command.to_ascii_lowercase());
    format!("CREATE POLICY {name} ON {} FOR {command} TO {} {clause} {mine};", place.quoted, quoted(place.app_role))
}
