//! `check` before anything else: its SQL can be piped to psql in the order in which it is printed.

use serde_json::Value;

use crate::database::Database;
use crate::process::run;

const TABLES: &str = "CREATE TABLE members (user_id text, project_id text, PRIMARY KEY (user_id, project_id));
    CREATE TABLE items (id text PRIMARY KEY, audience_key text NOT NULL, body text);";

fn check(database: &Database, tables: &str) -> (i32, Vec<Value>) {
    let environment = [("DATABASE_URL", database.url.as_str()), ("SYNCHROTRON_TABLES", tables)];
    let ran = run(&["check", "--json"], &environment);
    (ran.code, ran.json().as_array().expect("a list").clone())
}

/// All SQL of the findings as one script, with the app's memberships filled in.
fn script(findings: &[Value]) -> String {
    let remedies = findings.iter().filter_map(|finding| finding["remedy"].as_str());
    let remedies = remedies.map(|remedy| remedy.replace("<your memberships>", "members"));
    remedies.inspect(|remedy| assert!(remedy.ends_with(';'), "{remedy}")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn what_it_says_of_a_fresh_database_can_be_run_as_it_is_printed() {
    let mut database = Database::empty().await;
    database.execute(TABLES).await;
    let (code, findings) = check(&database, "items");
    assert_eq!((code, findings[0]["kind"].as_str()), (1, Some("schema_behind")), "migrate comes first: {findings:#?}");
    assert!(findings.iter().any(|finding| finding["kind"] == "no_user_audiences"), "{findings:#?}");
    database.execute(&script(&findings)).await;

    assert_eq!(run(&["migrate"], &[("DATABASE_URL", &database.url)]).code, 0);
    for _ in 0..3 {
        let (_, findings) = check(&database, "items");
        database.execute(&script(&findings)).await;
    }
    let (code, findings) = check(&database, "items");
    assert_eq!((code, script(&findings).as_str()), (0, ""), "{findings:#?}");
}

#[tokio::test]
async fn a_mistyped_table_is_asked_back() {
    let mut database = Database::empty().await;
    database.execute(TABLES).await;
    let (_, findings) = check(&database, "itens,flights");
    let about = |table: &str| findings.iter().find(|finding| finding["where"] == table).expect("found").clone();
    let mistyped = about("table itens");
    assert!(mistyped["what"].as_str().expect("text").ends_with("did you mean items?"), "{mistyped}");
    assert_eq!(mistyped["remedy"], Value::Null, "no SQL mends a setting: {mistyped}");
    let absent = about("table flights");
    assert!(absent["remedy"].as_str().expect("text").starts_with("CREATE TABLE"), "{absent}");
}
