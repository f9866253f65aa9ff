//! `nats-config` writes what a nats-server and the server itself understand, and what is shipped is what it writes.

use synchrotron_testkit::{NatsOptions, NatsServer};

use crate::process::run;

/// Long enough to make keys of.
pub(crate) const NATS_SECRET: &str = "the secret of NATS in these tests";

/// A NATS server with the configuration that the command writes for this prefix.
pub(crate) async fn nats(prefix: &str) -> NatsServer {
    let environment = [("SYNCHROTRON_NATS_SECRET", NATS_SECRET), ("SYNCHROTRON_NATS_PREFIX", prefix)];
    let written = run(&["nats-config"], &environment);
    assert_eq!(written.code, 0, "{written:?}");
    NatsServer::start(NatsOptions::default().with_config(written.stdout)).await.expect("nats-server")
}

#[test]
fn what_is_shipped_is_what_it_writes() {
    let compose = include_str!("../../../compose.yaml");
    let (_, rest) = compose.split_once("${SYNCHROTRON_NATS_SECRET:-").expect("a secret for trying things out");
    let (secret, _) = rest.split_once('}').expect("ends");
    let written = run(&["nats-config", "--monitor=0.0.0.0:8222"], &[("SYNCHROTRON_NATS_SECRET", secret)]);
    assert_eq!((written.code, written.stdout.as_str()), (0, include_str!("../../../deploy/nats-server.conf")));
    assert!(!written.stdout.contains(secret));
}

#[test]
fn without_a_secret_there_are_no_keys() {
    run(&["nats-config"], &[]).assert_complains(2, &["SYNCHROTRON_NATS_SECRET"]);
    run(&["nats-config"], &[("SYNCHROTRON_NATS_SECRET", "guessable")]).assert_complains(2, &["9 bytes"]);
    let serve = [
        ("DATABASE_URL", "postgres://127.0.0.1:1/nowhere"),
        ("NATS_URL", "nats://127.0.0.1:1"),
        ("SYNCHROTRON_TABLES", "notes"),
        ("SYNCHROTRON_JWT_SECRET", crate::process::SECRET),
    ];
    run(&["serve"], &serve).assert_complains(2, &["SYNCHROTRON_NATS_SECRET", "nats-config"]);
}
