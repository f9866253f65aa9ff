//! `migrate`, and what `serve` makes of a schema that is not its own.

use crate::database::Database;
use crate::process::{SECRET, run};

#[tokio::test]
async fn it_says_what_it_applied_and_does_nothing_twice() {
    let database = Database::empty().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let first = run(&["migrate"], &environment);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stdout.starts_with("applied 0001 log\napplied 0002 access\n"), "{}", first.stdout);
    let again = run(&["migrate", "--json"], &environment);
    assert_eq!((again.code, again.json()["applied"].clone()), (0, serde_json::json!([])));
    assert!(first.stdout.ends_with(&format!("has version {}\n", again.json()["version"])), "{}", first.stdout);
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_and_its_version_named() {
    let mut database = Database::create().await;
    let environment = [
        ("DATABASE_URL", database.url.clone()),
        ("SYNCHROTRON_TABLES", "notes".to_owned()),
        ("SYNCHROTRON_JWT_SECRET", SECRET.to_owned()),
        ("SYNCHROTRON_LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    run(&["serve", "--no-migrate"], &environment).assert_complains(1, &["has version 0", "run the command migrate"]);
    assert_eq!(run(&["migrate"], &environment).code, 0);

    database.execute("UPDATE synchrotron.schema_migrations SET checksum = '\\x00' WHERE version = 2").await;
    for args in [&["serve", "--no-migrate"][..], &["serve"], &["migrate"]] {
        run(args, &environment).assert_complains(1, &["migration 2"]);
    }
    database
        .execute(
            "INSERT INTO synchrotron.schema_migrations (version, description, success, checksum, execution_time)
            VALUES (9999, 'of tomorrow', true, '\\x00', 0); DELETE FROM synchrotron.schema_migrations WHERE version = 2",
        )
        .await;
    for args in [&["serve", "--no-migrate"][..], &["serve"], &["migrate"]] {
        run(args, &environment).assert_complains(1, &["has version 9999", "run a newer build"]);
    }
    let findings = run(&["check", "--json"], &environment);
    assert_eq!(findings.json()[0]["kind"], "schema_ahead", "{findings:?}");
}
