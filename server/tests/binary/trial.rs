//! `check` acts as a user: what no look at the catalogue shows is found before the first device asks.

use serde_json::Value;

use crate::database::Database;
use crate::process::run;

/// A table that users may use by the catalogue; what its policy reads is another matter.
fn table(policy: &str) -> String {
    format!(
        "CREATE TABLE items (id text PRIMARY KEY, audience_key text NOT NULL);
        CREATE INDEX ON items (audience_key);
        GRANT SELECT, INSERT, UPDATE, DELETE ON items TO synchrotron_user;
        ALTER TABLE items ENABLE ROW LEVEL SECURITY;
        CREATE POLICY members ON items TO synchrotron_user USING ({policy});"
    )
}

async fn migrated(more: &str) -> Database {
    let mut database = Database::create().await;
    assert_eq!(run(&["migrate"], &[("DATABASE_URL", &database.url)]).code, 0);
    database.execute(more).await;
    database
}

fn check(database: &Database) -> (i32, Vec<Value>) {
    let environment = [("DATABASE_URL", database.url.as_str()), ("SYNCHROTRON_TABLES", "items")];
    let ran = run(&["check", "--json"], &environment);
    (ran.code, ran.json().as_array().expect("a list").clone())
}

/// The one error, which is of this kind.
fn error<'f>(findings: &'f [Value], kind: &str) -> &'f Value {
    let errors: Vec<&Value> = findings.iter().filter(|finding| finding["level"] == "error").collect();
    let [error] = errors[..] else { panic!("not one error: {findings:#?}") };
    assert_eq!(error["kind"], kind, "{error}");
    error
}

const BY_VIEW: &str = "audience_key IN (SELECT audience_key FROM synchrotron.user_audiences
    WHERE user_id = current_setting('synchrotron.user_id', true))";

#[tokio::test]
async fn a_policy_that_reads_what_users_may_not_read_is_an_error() {
    let mut database = migrated("REVOKE SELECT ON synchrotron.user_audiences FROM synchrotron_user").await;
    database.execute(&table(BY_VIEW)).await;
    let (code, findings) = check(&database);
    let denied = error(&findings, "policy_denied");
    assert_eq!((code, denied["where"].as_str()), (1, Some("table items")), "{denied}");
    let what = denied["what"].as_str().expect("text");
    for part in ["SELECT, INSERT, UPDATE, DELETE", "permission denied for view user_audiences", "my_audiences()"] {
        assert!(what.contains(part), "{part}: {what}");
    }
    let remedy = denied["remedy"].as_str().expect("some");
    assert_eq!(remedy, "GRANT SELECT ON synchrotron.user_audiences TO synchrotron_user;");
    database.execute(remedy).await;
    assert_eq!(check(&database).0, 0);
}

#[tokio::test]
async fn my_audiences_needs_no_grant() {
    let database = migrated(
        &[
            "REVOKE SELECT ON synchrotron.user_audiences FROM synchrotron_user;",
            &table("audience_key IN (SELECT synchrotron.my_audiences())"),
        ]
        .concat(),
    )
    .await;
    let (code, findings) = check(&database);
    assert_eq!(code, 0, "{findings:#?}");
}

#[tokio::test]
async fn tables_of_the_app_that_a_policy_reads_are_named() {
    let policy = "EXISTS (SELECT FROM teams t JOIN ranks USING (team) WHERE audience_key = 'team:' || t.team)";
    let more = ["CREATE TABLE teams (team text); CREATE TABLE ranks (team text);", &table(policy)].concat();
    let mut database = migrated(&more).await;
    let (_, findings) = check(&database);
    let remedy = error(&findings, "policy_denied")["remedy"].as_str().expect("some");
    assert_eq!(
        remedy,
        "GRANT SELECT ON public.ranks TO synchrotron_user; GRANT SELECT ON public.teams TO synchrotron_user;"
    );
    database.execute(remedy).await;
    assert_eq!(check(&database).0, 0);
}

/// Every session, fetch and snapshot asks the view; it reads as its owner.
#[tokio::test]
async fn a_view_that_may_not_read_its_tables_is_an_error() {
    let mut database = migrated(
        &[
            "DO $$ BEGIN CREATE ROLE check_owner; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
            ALTER VIEW synchrotron.user_audiences OWNER TO check_owner;",
            &table("audience_key IN (SELECT synchrotron.my_audiences())"),
        ]
        .concat(),
    )
    .await;
    let (_, findings) = check(&database);
    let denied = error(&findings, "user_audiences_denied");
    assert_eq!(denied["where"], "view synchrotron.user_audiences");
    let remedy = denied["remedy"].as_str().expect("some");
    assert_eq!(remedy, "GRANT SELECT ON public.members TO check_owner;");
    database.execute(remedy).await;
    assert_eq!(check(&database).0, 0);
}

/// Functions are hidden from everybody in some databases.
#[tokio::test]
async fn a_function_that_users_may_not_call_is_an_error() {
    let mut database = migrated(&table("audience_key IN (SELECT synchrotron.my_audiences())")).await;
    database.execute("REVOKE EXECUTE ON FUNCTION synchrotron.my_audiences() FROM PUBLIC").await;
    let (_, findings) = check(&database);
    for finding in findings.iter().filter(|finding| finding["level"] == "error") {
        assert_eq!(finding["remedy"], "GRANT EXECUTE ON FUNCTION synchrotron.my_audiences() TO \"synchrotron_user\";");
        database.execute(finding["remedy"].as_str().expect("text")).await;
    }
    assert_eq!(check(&database).0, 0);
    assert!(!findings.is_empty());
}

/// It tries as `serve` would be able to, and takes everything back.
#[tokio::test]
async fn trying_leaves_nothing() {
    let mut database = migrated(&table(BY_VIEW)).await;
    database
        .execute("REVOKE ALL ON synchrotron.action_records, synchrotron.audience_heads FROM synchrotron_user")
        .await;
    assert_eq!(check(&database).0, 0, "serve grants that itself");
    let granted =
        "DO $$ BEGIN ASSERT NOT has_table_privilege('synchrotron_user', 'synchrotron.audience_heads', 'SELECT');
        ASSERT (SELECT count(*) = 0 FROM items); END $$";
    database.execute(granted).await;
}
