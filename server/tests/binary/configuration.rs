//! The command line and the file, before anything is connected to.

use std::io::Write;

use crate::process::run;

#[test]
fn without_a_command_it_says_which_there_are() {
    let ran = run(&[], &[]);
    assert_eq!(ran.code, 2);
    for command in ["serve", "migrate", "check", "status", "token"] {
        assert!(ran.stderr.contains(&format!("\n  {command} ")), "{command}: {}", ran.stderr);
        let help = run(&[command, "--help"], &[("DATABASE_URL", "postgres://u:hunter2@h/d")]);
        assert_eq!(help.code, 0);
        assert!(help.stdout.contains("--config <FILE>") && !help.stdout.contains("hunter2"), "{}", help.stdout);
    }
}

#[test]
fn a_misspelt_key_of_the_file_is_named() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "database_url = 'postgres://u:hunter2@127.0.0.1:1/d'\n[nats]\nreplica = 3").expect("writes");
    let path = file.path().to_str().expect("a path");
    for (args, environment) in
        [(vec!["status", "--config", path], vec![]), (vec!["status"], vec![("SYNCHROTRON_CONFIG", path)])]
    {
        let ran = run(&args, &environment);
        ran.assert_complains(2, &[path, "nats.replica", "nats.replicas is"]);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    run(&["status", "--config", "/nowhere/at/all"], &[]).assert_complains(2, &["/nowhere/at/all"]);
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_variable() {
    let environment = [("SYNCHROTRON_NATS_UPLOADS_MAX", "many"), ("NATS_URL", "nats://h")];
    run(&["status"], &environment).assert_complains(2, &["nats.uploads_max", "SYNCHROTRON_NATS_UPLOADS_MAX"]);
    run(&["serve", "--head-gate=open"], &[]).assert_complains(2, &["head_gate", "\"visible\" or \"touched\""]);
}
