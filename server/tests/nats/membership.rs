//! Rights follow membership at once: what is lost is cut off, what is gained is there, and devices go on meanwhile.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use serde_json::json;
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_core::wire::SessionRequest;
use synchrotron_nats::subjects::UserToken;
use synchrotron_server::Server;
use synchrotron_testkit::{NatsCluster, NatsOptions, NatsServer, ServiceError, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::stack::{PATIENCE, Stack, conf, key, token};

/// How often it was let in.
fn connects(client: &async_nats::Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Waits until the rights of all connections were looked at so often: who loses an audience is cut off by such a look.
async fn looks_at_all(stack: &Stack, times: usize) {
    for time in 0..times {
        let user = format!("witness-{time}");
        stack.allow(&user, "project:witnessed").await;
        let witness = stack.raw(&user).await;
        stack.forbid(&user, "project:witnessed").await;
        wait_for("a look", PATIENCE, async || (connects(&witness) > 1).then_some(())).await.expect("cut off");
    }
}

#[tokio::test]
async fn who_loses_an_audience_hears_no_more_of_it_whatever_its_device_does() {
    loses_and_hears_no_more(&Stack::start().await).await;
}

/// The server is at one node, devices are at another.
#[tokio::test]
async fn who_loses_an_audience_is_cut_off_at_any_node_of_a_cluster() {
    let cluster = match NatsCluster::start(3, &NatsOptions::default().with_config(conf().to_string())).await {
        Ok(cluster) => cluster,
        Err(ServiceError::NotOurs { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let mut stack = Stack::start_on(&cluster.nodes()[0], |api| api.replicas = 3).await;
    cluster.nodes()[1].url().clone_into(&mut stack.nats_url);
    stack.is_live().await;
    loses_and_hears_no_more(&stack).await;
}

async fn loses_and_hears_no_more(stack: &Stack) {
    let alice = stack.device("alice", &["project:1"]).await;
    let mallory = stack.device("mallory", &["project:1"]).await;
    // A device of her own making, which heeds nothing that the server says.
    let raw = stack.raw("mallory").await;
    let mut heard = raw.subscribe(stack.subjects.live(&key("project:1"))).await.expect("sends");
    alice.accepted(&alice.seat("before", "project:1")).await;
    let first = tokio::time::timeout(PATIENCE, heard.next()).await.expect("in time");
    assert!(first.is_some());

    let before = connects(&raw);
    let lost = Instant::now();
    stack.forbid("mallory", "project:1").await;
    wait_for("the end", PATIENCE, async || (connects(&raw) > before).then_some(())).await.expect("cut off");
    eprintln!("rights that were lost ended after {:?}", lost.elapsed());
    // It comes back by itself, and asks for the same again.
    stack.settle(&raw, &mallory).await;
    while heard.next().now_or_never().flatten().is_some() {}
    alice.accepted(&alice.seat("after", "project:1")).await;
    stack.settle(&raw, &mallory).await;
    assert!(heard.next().now_or_never().flatten().is_none(), "it hears still");
}

#[tokio::test]
async fn a_device_that_loses_an_audience_loses_no_call() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1", "project:2"]).await;
    let mut events = alice.subscribe(&["project:1", "project:2"]).await;
    stack.forbid("alice", "project:2").await;
    let request = SessionRequest { client_id: alice.client_id };
    let ended = wait_for("the stream to end", PATIENCE, async || {
        // Its connection is made anew at some moment, between two calls.
        alice.network.session(&request).await.expect("no call fails");
        events.ended().then_some(())
    });
    ended.await.expect("ended");
    let refused = alice.network.subscribe(&[key("project:1"), key("project:2")]).await;
    assert!(matches!(refused, Err(NetworkError::NotPermitted { .. })), "{:?}", refused.err());
    let mut events = alice.subscribe(&["project:1"]).await;
    alice.accepted(&alice.seat("s1", "project:1")).await;
    events.slice().await;
}

#[tokio::test]
async fn a_device_that_gains_an_audience_hears_of_it_and_of_that() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let mut events = alice.subscribe(&["project:1"]).await;
    let gained = Instant::now();
    stack.allow("alice", "project:2").await;
    events.wakeup().await;
    eprintln!("rights that were gained were there after {:?}", gained.elapsed());
    let mut events = alice.subscribe(&["project:1", "project:2"]).await;
    let bob = stack.device("bob", &["project:2"]).await;
    bob.accepted(&bob.seat("s1", "project:2")).await;
    assert_eq!(events.slice().await.audience_key, key("project:2"));
}

#[tokio::test]
async fn a_device_that_knows_first_need_not_wait() {
    // The server itself would look in an hour.
    let stack = Stack::start_with(|api| api.membership_every = Duration::from_secs(3_600)).await;
    let alice = stack.device("alice", &["project:1"]).await;
    alice.subscribe(&["project:1"]).await;
    stack.allow("alice", "project:2").await;
    let mut events = alice.subscribe(&["project:1", "project:2"]).await;
    alice.accepted(&alice.seat("s1", "project:2")).await;
    assert_eq!(events.slice().await.audience_key, key("project:2"));
}

/// A connection by hand, which costs next to nothing.
async fn bare_connection(address: &str, user: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connects");
    let options = json!({ "verbose": false, "auth_token": token(user, 3_600), "protocol": 1 });
    stream.write_all(format!("CONNECT {options}\r\nPING\r\n").as_bytes()).await.expect("sends");
    let mut answer = String::new();
    while !answer.contains("PONG") {
        let mut bytes = [0; 4_096];
        let count = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("in time").expect("answers");
        assert_ne!(count, 0, "not let in: {answer}");
        answer.push_str(std::str::from_utf8(&bytes[..count]).expect("text"));
    }
    stream
}

/// NATS lists a thousand connections at a time, and a process that begins knows of none but by that.
#[tokio::test(flavor = "multi_thread")]
async fn of_more_connections_than_one_list_holds_none_keeps_its_rights() {
    let mut stack = Stack::start().await;
    stack.allow("mallory", "project:1").await;
    let address = stack.nats_url.trim_start_matches("nats://").to_owned();
    let connecting = futures::stream::iter(0..1_100).map(|_| bare_connection(&address, "mallory"));
    let connections: Vec<TcpStream> = connecting.buffer_unordered(32).collect().await;
    stack.server.shutdown().await;
    stack.server = Server::start(stack.settings.clone()).await.expect("starts");
    stack.is_live().await;
    stack.forbid("mallory", "project:1").await;
    for mut connection in connections {
        let mut rest = Vec::new();
        let _reset = timeout(PATIENCE, connection.read_to_end(&mut rest)).await.expect("cut off");
    }
}

#[tokio::test]
async fn connections_outlive_the_process_that_let_them_in_and_their_rights_do_not() {
    let stack = Stack::start().await;
    stack.allow("mallory", "project:1").await;
    let raw = stack.raw("mallory").await;
    let before = connects(&raw);
    let Stack { server, nats, nats_url, subjects, settings, database } = stack;
    server.shutdown().await;
    let server = Server::start(settings.clone()).await.expect("starts");
    let stack = Stack { server, nats, nats_url, subjects, settings, database };
    stack.is_live().await;
    assert_eq!(connects(&raw), before, "connections do not depend on a process");
    stack.forbid("mallory", "project:1").await;
    wait_for("the end", PATIENCE, async || (connects(&raw) > before).then_some(())).await.expect("cut off");
}

/// What the app's view says of eve is no audience. Nobody else keeps rights for that.
#[tokio::test]
async fn a_key_that_is_no_audience_keeps_nobodys_rights_alive() {
    let stack = Stack::start().await;
    let eve = stack.device("eve", &["project:1"]).await;
    stack.execute("INSERT INTO members VALUES ('eve', ''), ('eve', repeat('x', 600))").await;
    loses_and_hears_no_more(&stack).await;
    let session = eve.network.session(&SessionRequest { client_id: eve.client_id }).await.expect("served");
    assert_eq!(session.audiences.len(), 1);
}

#[tokio::test]
async fn thousands_of_audiences_are_heard() {
    let stack = Stack::start().await;
    let keys: Vec<String> = (0..3_000).map(|number| format!("project:{number}-with-a-rather-long-name")).collect();
    stack.allow_all("alice", &keys).await;
    let alice = stack.device("alice", &[]).await;
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    let began = Instant::now();
    let mut events = alice.subscribe(&all).await;
    eprintln!("subscribed to {} audiences in {:?}", all.len(), began.elapsed());
    alice.accepted(&alice.seat("s1", all[2_999])).await;
    assert_eq!(events.slice().await.audience_key, key(all[2_999]));
}

#[tokio::test]
async fn more_audiences_than_nats_can_be_told_are_polled() {
    let mut options = NatsOptions::default().with_config(conf().to_string());
    options.max_payload_bytes = 64 << 10;
    let nats = NatsServer::start(options).await.expect("nats-server");
    let stack = Stack::start_on(&nats, |_| {}).await;
    let keys: Vec<String> = (0..2_000).map(|number| format!("project:{number}")).collect();
    stack.allow_all("alice", &keys).await;
    let alice = stack.device("alice", &[]).await;
    let refused = alice.network.subscribe(&[key(&keys[0])]).await;
    assert!(matches!(refused, Err(NetworkError::NotPermitted { .. })), "{:?}", refused.err());
    assert_eq!(alice.session.audiences.len(), 2_000);
    // Those who look after connections would have granted no more than that, however often they look.
    let raw = stack.raw("alice").await;
    let mut renewals = raw.subscribe(stack.subjects.ctl(&UserToken::of(&alice.user))).await.expect("sends");
    stack.settle(&raw, &alice).await;
    looks_at_all(&stack, 3).await;
    stack.settle(&raw, &alice).await;
    assert!(renewals.next().now_or_never().is_none(), "it is told to connect anew");
    assert_eq!(connects(&raw), 1);
}

/// A device that is in a new audience before its connection may hear it gets a connection with the rights of now. Whoever
/// listens is polled between calls only, and calls wait for the connection: it must come without being asked for again.
#[tokio::test]
async fn a_call_does_not_wait_for_who_listens_to_be_polled_again() {
    let stack = Stack::start_with(|api| api.membership_every = Duration::from_secs(3_600)).await;
    let alice = stack.device("alice", &["project:1"]).await;
    stack.allow("alice", "project:2").await;
    let audiences = [key("project:1"), key("project:2")];
    let mut listening = alice.network.subscribe(&audiences);
    assert!((&mut listening).now_or_never().is_none(), "it renews the connection first");
    let request = SessionRequest { client_id: alice.client_id };
    let session = tokio::time::timeout(PATIENCE, alice.network.session(&request)).await;
    assert_eq!(session.expect("it waits for nobody who is not polled").expect("served").audiences.len(), 2);
    assert!(listening.await.expect("the rights of now").is_some());
}
