//! `check` names each fault, with SQL that mends it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::database::{Database, sound};
use crate::process::run;

/// A table, how it is spoilt, and the findings about it.
type Case = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const TABLES: [Case; 22] = [
    ("sound", "", &[]),
    ("unsecured", "ALTER TABLE unsecured DISABLE ROW LEVEL SECURITY", &[("error", "no_row_level_security")]),
    ("hidden", "DROP POLICY s ON hidden", &[("error", "no_policy")]),
    ("no_insert", "DROP POLICY i ON no_insert", &[("warning", "no_policy")]),
    ("no_update", "DROP POLICY u ON no_update", &[("warning", "no_policy")]),
    ("no_delete", "DROP POLICY d ON no_delete", &[("warning", "no_policy")]),
    (
        "restricted",
        "DROP POLICY d ON restricted; CREATE POLICY r ON restricted AS RESTRICTIVE USING (true)",
        &[("warning", "no_policy")],
    ),
    (
        "for_others",
        "DROP POLICY d ON for_others; CREATE POLICY d ON for_others FOR DELETE TO pg_monitor USING (true)",
        &[("warning", "no_policy")],
    ),
    ("no_read_grant", "REVOKE SELECT ON no_read_grant FROM synchrotron_user", &[("error", "no_grant")]),
    ("no_write_grant", "REVOKE DELETE ON no_write_grant FROM synchrotron_user", &[("warning", "no_grant")]),
    ("owned", "ALTER TABLE owned OWNER TO synchrotron_user", &[("error", "app_role_owns")]),
    ("unindexed", "DROP INDEX unindexed_audience", &[("warning", "no_audience_index")]),
    (
        "half_indexed",
        "DROP INDEX half_indexed_audience; CREATE INDEX ON half_indexed (body, audience_key)",
        &[("warning", "no_audience_index")],
    ),
    (
        "nullable",
        "ALTER TABLE nullable ALTER COLUMN audience_key DROP NOT NULL",
        &[("warning", "audience_key_nullable")],
    ),
    ("keyless", "ALTER TABLE keyless DROP CONSTRAINT keyless_pkey", &[("error", "primary_key")]),
    ("numbered", "ALTER TABLE numbered ALTER COLUMN id TYPE int USING 0", &[("error", "primary_key")]),
    (
        "adrift",
        "ALTER TABLE adrift DROP COLUMN audience_key CASCADE",
        &[
            ("error", "no_audience_key"),
            ("error", "no_policy"),
            ("warning", "no_audience_index"),
            ("warning", "no_policy"),
            ("warning", "no_policy"),
            ("warning", "no_policy"),
        ],
    ),
    ("internal", "ALTER TABLE internal ADD tree pg_node_tree", &[("error", "column_type")]),
    (
        "composite",
        "CREATE TYPE pair AS (x int, y text); ALTER TABLE composite ADD p pair, ADD ps pair[], ADD n int[]",
        &[("error", "composite_column"), ("error", "composite_column")],
    ),
    ("unique_body", "ALTER TABLE unique_body ADD UNIQUE (body)", &[("info", "unique")]),
    (
        "triggered",
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
        CREATE TRIGGER does_nothing AFTER INSERT ON triggered EXECUTE FUNCTION nothing()",
        &[("info", "trigger")],
    ),
    (
        "collated",
        "CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        ALTER TABLE collated ALTER COLUMN id TYPE text COLLATE any_case",
        &[("warning", "id_collation")],
    ),
];

fn check(url: &str, tables: &str, more: &[&str]) -> (i32, Vec<Value>) {
    let ran = run(&[&["check", "--json"], more].concat(), &[("DATABASE_URL", url), ("SYNCHROTRON_TABLES", tables)]);
    let findings = ran.json().as_array().expect("a list").clone();
    (ran.code, findings)
}

fn text<'f>(finding: &'f Value, field: &str) -> &'f str {
    finding[field].as_str().unwrap_or_else(|| panic!("no {field}: {finding}"))
}

/// Level and kind of the findings about a place.
fn about<'f>(findings: &'f [Value], place: &str) -> Vec<(&'f str, &'f str)> {
    let found = findings.iter().filter(|finding| finding["where"] == place);
    let mut found: Vec<_> = found.map(|finding| (text(finding, "level"), text(finding, "kind"))).collect();
    found.sort_unstable();
    found
}

async fn spoilt() -> (Database, String) {
    let mut database = Database::create().await;
    assert_eq!(run(&["migrate"], &[("DATABASE_URL", &database.url)]).code, 0);
    for (table, spoil, _) in TABLES {
        database.execute(&sound(table)).await;
        database.execute(spoil).await;
    }
    let tables = TABLES.map(|(table, ..)| table).join(",");
    (database, tables)
}

#[tokio::test]
async fn each_fault_of_a_table_is_named() {
    let (database, tables) = spoilt().await;
    let (code, findings) = check(&database.url, &format!("{tables},absent,pg_class,members"), &[]);
    assert_eq!(code, 1);
    for (table, _, expected) in TABLES {
        assert_eq!(about(&findings, &format!("table {table}")), expected, "{table}: {findings:#?}");
    }
    assert_eq!(about(&findings, "table absent"), [("error", "no_table")]);
    assert_eq!(about(&findings, "table pg_class"), [("error", "not_trackable")]);
    assert!(about(&findings, "table members").contains(&("error", "primary_key")), "{findings:#?}");
    assert!(findings.is_sorted_by_key(|finding| match text(finding, "level") {
        "error" => 0,
        "warning" => 1,
        _ => 2,
    }));
    let what = |kind: &str| text(findings.iter().find(|finding| finding["kind"] == kind).expect(kind), "what");
    assert_eq!(
        what("column_type"),
        "column tree of table internal has type pg_node_tree, which no value can be written to"
    );
    assert!(what("primary_key").contains("keyless"), "{}", what("primary_key"));
}

/// Whoever runs the SQL of each finding, as often as there is some, is left with nothing but what is worth knowing.
#[tokio::test]
async fn what_it_says_mends() {
    let (mut database, tables) = spoilt().await;
    let mut rounds: Vec<BTreeMap<String, String>> = Vec::new();
    loop {
        let (code, findings) = check(&database.url, &tables, &[]);
        let to_mend = findings.iter().filter(|finding| finding["remedy"].is_string());
        let remedies: BTreeMap<String, String> = to_mend
            .map(|finding| (text(finding, "remedy").to_owned(), format!("{} {}", finding["where"], finding["kind"])))
            .collect();
        if remedies.is_empty() {
            assert!(findings.iter().all(|finding| finding["level"] != "error"), "{findings:#?}");
            assert_eq!(code, 0);
            return;
        }
        for remedy in remedies.keys() {
            assert!(!rounds.iter().any(|round| round.contains_key(remedy)), "mends nothing: {remedy}");
            database.execute(remedy).await;
        }
        rounds.push(remedies);
    }
}

#[tokio::test]
async fn people_read_where_what_and_how_to_mend_it() {
    let mut database = Database::create().await;
    let environment = [("DATABASE_URL", database.url.clone()), ("SYNCHROTRON_TABLES", "notes".to_owned())];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let sound = run(&["check"], &environment);
    assert_eq!(sound.code, 0, "{sound:?}");
    assert!(
        sound.stdout.starts_with("info: schema synchrotron: ") && sound.stdout.ends_with("errors: 0, warnings: 0\n")
    );
    assert_eq!(run(&["migrate"], &environment).code, 0);
    database.execute("ALTER TABLE notes DISABLE ROW LEVEL SECURITY").await;
    let ran = run(&["check"], &environment);
    assert_eq!(ran.code, 1);
    let expected = "error: table notes: row level security is not enabled: any user may read and write any row \
        [no_row_level_security]\n    ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;\n";
    assert!(ran.stdout.starts_with(expected), "{}", ran.stdout);
}

#[tokio::test]
async fn each_fault_of_the_view_is_named() {
    let view = "view synchrotron.user_audiences";
    let scan = [("warning", "user_audiences_scan")];
    let cases: [(&str, &[(&str, &str)]); 6] = [
        ("", &[]),
        ("DROP VIEW synchrotron.user_audiences CASCADE", &[("error", "no_user_audiences")]),
        (
            "DROP VIEW synchrotron.user_audiences CASCADE;
            CREATE VIEW synchrotron.user_audiences AS SELECT 1 AS user_id, 'a'::text AS audience_key",
            &[("error", "user_audiences_column")],
        ),
        // An index that ends with the user is read from end to end.
        ("ALTER TABLE members DROP CONSTRAINT members_pkey, ADD PRIMARY KEY (project_id, user_id)", &scan),
        ("ALTER TABLE members DROP CONSTRAINT members_pkey", &scan),
        // The view's cast hides the column from its index.
        (
            "CREATE TABLE teams (user_id uuid PRIMARY KEY);
            CREATE OR REPLACE VIEW synchrotron.user_audiences AS
                SELECT user_id, 'project:' || project_id AS audience_key FROM members
                UNION ALL SELECT user_id::text, 'all' FROM teams",
            &scan,
        ),
    ];
    for (spoil, expected) in cases {
        let mut database = Database::create().await;
        database.execute(spoil).await;
        let (_, findings) = check(&database.url, "notes", &[]);
        assert_eq!(about(&findings, view), expected, "{spoil}: {findings:#?}");
    }
}

#[tokio::test]
async fn each_fault_of_a_role_is_named() {
    let mut database = Database::create().await;
    let (_, findings) = check(&database.url, "notes", &["--app-role=postgres"]);
    assert_eq!(about(&findings, "role postgres"), [("error", "app_role_unbound")]);
    let (_, findings) = check(&database.url, "notes", &["--app-role=nobody there"]);
    assert_eq!(about(&findings, "role nobody there"), [("error", "no_app_role")]);

    // A server whose role is an ordinary one: it may not act as users, and its own table's policies bind it.
    database
        .execute(
            "DO $$ BEGIN CREATE ROLE check_server LOGIN PASSWORD 'check'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
            ALTER TABLE notes FORCE ROW LEVEL SECURITY;
            GRANT USAGE, CREATE ON SCHEMA public TO check_server; ALTER TABLE notes OWNER TO check_server;
            GRANT USAGE ON SCHEMA synchrotron TO check_server",
        )
        .await;
    let mut url: url::Url = database.url.parse().expect("a URL");
    url.set_username("check_server").expect("has a user");
    url.set_password(Some("check")).expect("has a password");
    let (code, findings) = check(url.as_str(), "notes", &[]);
    assert_eq!(code, 1);
    assert_eq!(about(&findings, "role synchrotron_user"), [("error", "app_role_not_ours")]);
    assert_eq!(about(&findings, "view synchrotron.user_audiences"), [("error", "user_audiences_denied")]);
    assert!(about(&findings, "table notes").contains(&("error", "server_role_filtered")), "{findings:#?}");
}

#[tokio::test]
async fn it_changes_nothing_and_says_what_it_cannot_ask() {
    let database = Database::create().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    run(&["check"], &environment).assert_complains(2, &["no tracked table is named", "SYNCHROTRON_TABLES"]);
    run(&["check", "--tables=t"], &[]).assert_complains(2, &["DATABASE_URL"]);
    run(&["check", "--tables=t", "--database-url=postgres://127.0.0.1:1/nowhere"], &[])
        .assert_complains(1, &["postgres refused to connect"]);
    assert_eq!(check(&database.url, "notes", &[]).0, 0);
    let status = run(&["status", "--json"], &environment);
    assert_eq!(status.json()["schema_version"], Value::Null);
}
