//! Streams that somebody else has made: taken if they will do, never shrunk, and refused by name if they will not.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, Republish, StorageType};
use async_nats::jetstream::{self, Context};
use synchrotron_server::check::{Finding, Level, check_nats};
use synchrotron_testkit::{NatsServer, wait_for};

use crate::world::{PATIENCE, World, connect, nats};

/// A world without a server, and NATS as an operator sees it.
async fn before(manage: bool) -> (World, Context, NatsServer) {
    let nats = nats().await;
    let world = World::without_server(nats.url(), |api| api.manage_streams = manage).await;
    let admin = jetstream::new(connect(nats.url()).await);
    (world, admin, nats)
}

fn up(world: &World) -> Config {
    Config {
        name: world.stream("UP"),
        subjects: vec![format!("{}.up.>", world.api().prefix)],
        discard: DiscardPolicy::New,
        max_bytes: 200 << 20,
        max_age: Duration::from_secs(24 * 3_600),
        max_consumers: 40,
        storage: StorageType::Memory,
        ..Config::default()
    }
}

fn log(world: &World) -> Config {
    let prefix = &world.api().prefix;
    let republish =
        Republish { source: format!("{prefix}.log.>"), destination: format!("{prefix}.live.>"), headers_only: false };
    Config {
        name: world.stream("LOG"),
        subjects: vec![format!("{prefix}.log.>")],
        republish: Some(republish),
        max_bytes: 10 << 20,
        ..Config::default()
    }
}

async fn config_of(admin: &Context, name: String) -> Config {
    admin.get_stream(name).await.expect("there").cached_info().config.clone()
}

fn kinds(findings: &[Finding]) -> Vec<(&'static str, Level)> {
    findings.iter().map(|finding| (finding.kind, finding.level)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operators_streams_are_used_and_left_as_they_are() {
    let (mut world, admin, _nats) = before(false).await;
    assert_eq!(kinds(&check_nats(world.api()).await), [("stream_missing", Level::Error); 2]);
    let mut made = Vec::new();
    for config in [up(&world), log(&world)] {
        made.push(admin.create_stream(config).await.expect("made").cached_info().config.clone());
    }
    assert_eq!(check_nats(world.api()).await, []);
    world.add_server().await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
    assert_eq!(config_of(&admin, world.stream("UP")).await, made[0]);
    assert_eq!(config_of(&admin, world.stream("LOG")).await, made[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_will_not_do_is_named_and_used_once_it_is_mended() {
    let (mut world, admin, _nats) = before(false).await;
    admin.create_stream(up(&world)).await.expect("made");
    admin.create_stream(Config { republish: None, ..log(&world) }).await.expect("made");
    let findings = check_nats(world.api()).await;
    assert_eq!(kinds(&findings), [("stream_lacks", Level::Error)]);
    assert!(findings[0].what.contains("republish") && findings[0].remedy.is_some(), "{findings:?}");
    world.add_server().await;
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    // Uploads go, and are heard of at the next look; slices wait in the outbox.
    World::under_load(&[&alice], world.accepts(3)).await;
    assert!(world.count("outbox", "true").await > 0);
    admin.update_stream(log(&world)).await.expect("mended");
    world.live_again(&alice, &bob).await;
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_grow_with_the_settings_and_never_shrink() {
    let (mut world, admin, _nats) = before(true).await;
    // What an earlier version made.
    let old = Config { max_consumers: 16, max_bytes: 1 << 20, ..up(&world) };
    admin.create_stream(old).await.expect("made");
    world.add_server().await;
    let is_grown = async || {
        let config = config_of(&admin, world.stream("UP")).await;
        (config.max_consumers == 64 && config.max_bytes == 64 << 20).then_some(config)
    };
    let grown = wait_for("the stream to grow", PATIENCE, is_grown).await.expect("grows");
    assert_eq!((grown.max_age, grown.storage), (up(&world).max_age, StorageType::Memory), "what is larger stays");
    let (alice, bob) = (world.device("alice").await, world.device("bob").await);
    world.live_again(&alice, &bob).await;

    // Another server with smaller settings, and the same streams.
    world.settings.nats.as_mut().expect("given").stream_bytes_max = 5 << 20;
    let findings = check_nats(world.api()).await;
    assert!(findings.iter().all(|finding| finding.kind == "stream_shrinks" && finding.level == Level::Warning));
    assert_eq!(findings.len(), 3, "the age and size of one, the size of the other: {findings:#?}");
    world.add_server().await;
    drop(world.servers.remove(0));
    world.live_again(&bob, &alice).await;
    assert_eq!(config_of(&admin, world.stream("UP")).await, grown);
    world.nothing_lost_nothing_doubled(&[&alice, &bob]).await;
}
