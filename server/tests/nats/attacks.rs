//! A device that does not keep to the rules, over a real nats-server: it is let in as itself, and tries everything else.

use std::collections::BTreeSet;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::{Client, Subscriber, jetstream};
use futures::{FutureExt, StreamExt};
use synchrotron_core::model::{ClientId, Cursor, Cursors};
use synchrotron_core::network::{Network, NetworkError};
use synchrotron_core::wire::{FetchRequest, Outcome, OutcomeMessage, SessionRequest, Slice, encode};
use synchrotron_nats::control::Control;
use synchrotron_nats::subjects::{RpcMethod, UserToken};
use synchrotron_server::api::nats::NatsStatus;
use synchrotron_testkit::{NatsOptions, NatsServer, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::stack::{Device, PATIENCE, Stack, key, prefix, token, user_id};

/// Alice and Bob share a project; Mallory is a user, too, and in none of theirs.
struct Scene {
    stack: Stack,
    alice: Device,
    bob: Device,
    mallory: Device,
    /// Mallory's own client.
    raw: Client,
}

impl Scene {
    async fn set() -> Self {
        let stack = Stack::start_with(|api| api.upload_bytes_max = 64 << 10).await;
        let alice = stack.device("alice", &["project:1", "user:alice"]).await;
        let bob = stack.device("bob", &["project:1"]).await;
        let mallory = stack.device("mallory", &["project:9"]).await;
        let raw = stack.raw("mallory").await;
        Self { stack, alice, bob, mallory, raw }
    }

    /// Everything that Mallory sent before is through NATS, and everything for her is here.
    async fn settle(&self) {
        self.stack.settle(&self.raw, &self.mallory).await;
    }

    /// Both streams are there, and the log has so many slices.
    async fn streams_are_whole(&self, slices: u64) {
        let admin = jetstream::new(self.stack.admin().await);
        let names: BTreeSet<String> = admin.stream_names().map(|name| name.expect("lists")).collect().await;
        assert_eq!(names, BTreeSet::from(["TEST_SYNC_UP".to_owned(), "TEST_SYNC_LOG".to_owned()]));
        let log = admin.get_stream("TEST_SYNC_LOG").await.expect("there");
        assert_eq!((log.cached_info().state.messages, log.cached_info().config.subjects.len()), (slices, 1));
        let consumers = admin.get_stream("TEST_SYNC_UP").await.expect("there").cached_info().state.consumer_count;
        assert_eq!(consumers, 1);
    }
}

#[tokio::test]
async fn nobody_hears_what_is_not_theirs() {
    let scene = Scene::set().await;
    let Scene { alice, bob, raw, .. } = &scene;
    let prefix = prefix();
    let mut heard: Vec<Subscriber> = Vec::new();
    let ours =
        ["live.project=3A1", "live.user=3Aalice", "live.*", "live.>", "log.>", "log.project=3A1", "up.>", "rpc.>"];
    let theirs = ["outcome.alice.*", "outcome.>", "ctl.alice", "ctl.*", "held.>", "*.project=3A1"];
    for rest in ours.into_iter().chain(theirs) {
        heard.push(raw.subscribe(format!("{prefix}.{rest}")).await.expect("sends"));
    }
    for other in
        [">", "*", "*.>", "*.*.*.*", "_INBOX.>", "_INBOX.*.>", "_INBOX.alice.>", "_R_.>", "$SYS.>", "$JS.>", "$KV.>"]
    {
        heard.push(raw.subscribe(other).await.expect("sends"));
        heard.push(raw.queue_subscribe(other, "synchrotron-server".to_owned()).await.expect("sends"));
    }
    scene.settle().await;
    let mut events = bob.subscribe(&["project:1"]).await;
    for number in 0..10 {
        alice.accepted(&alice.seat(&number.to_string(), "project:1")).await;
        events.slice().await;
    }
    scene.settle().await;
    for subscriber in &mut heard {
        let message = subscriber.next().now_or_never().flatten();
        assert!(message.is_none(), "{:?}", message.map(|message| message.subject));
    }
    // The same by our own client, which says so.
    let refused = scene.mallory.network.subscribe(&[key("project:9"), key("project:1")]).await;
    assert!(matches!(refused, Err(NetworkError::NotPermitted { .. })), "{:?}", refused.err());
    scene.mallory.subscribe(&["project:9"]).await;
}

#[tokio::test]
async fn nobody_speaks_for_another() {
    let scene = Scene::set().await;
    let Scene { stack, alice, bob, raw, .. } = &scene;
    let (prefix, batch) = (prefix(), alice.seat("forged", "project:1"));
    let mut alices = bob.subscribe(&["project:1"]).await;
    let connects = alice.connects().await;
    let forged_slice = Slice {
        epoch: alice.session.epoch,
        audience_key: key("project:1"),
        prev: Cursor::START,
        through: Cursor::new(1),
        records: Vec::new(),
    };
    let forged_outcome = OutcomeMessage { batch_id: None, outcome: Outcome::Retry { after_ms: 1 } };
    let up = stack.subjects.up(Some(&key("project:1")), &alice.user, alice.client_id);
    let outcome = stack.subjects.outcome(&UserToken::of(&alice.user), alice.client_id);
    for (subject, payload) in [
        (up.to_string(), encode(&batch)),
        (outcome.to_string(), encode(&forged_outcome)),
        (stack.subjects.live(&key("project:1")).to_string(), encode(&forged_slice)),
        (stack.subjects.log(&key("project:1")).to_string(), encode(&forged_slice)),
        (stack.subjects.ctl(&UserToken::of(&alice.user)).to_string(), encode(&Control::Renew)),
        (format!("{prefix}.up.*.*.*"), encode(&batch)),
        (format!("{prefix}.up.>"), encode(&batch)),
        (format!("{prefix}.up.*.mallory.*"), encode(&batch)),
        (format!("{prefix}.held.0000000000000000.alice.{}", alice.client_id), Vec::new()),
        ("$JS.API.STREAM.DELETE.TEST_SYNC_UP".to_owned(), Vec::new()),
        ("$JS.API.STREAM.PURGE.TEST_SYNC_LOG".to_owned(), Vec::new()),
        ("$JS.API.STREAM.CREATE.MINE".to_owned(), br#"{"name":"MINE","subjects":["mine"]}"#.to_vec()),
        (
            "$JS.API.CONSUMER.CREATE.TEST_SYNC_LOG.mine".to_owned(),
            br#"{"stream_name":"TEST_SYNC_LOG","config":{"name":"mine","deliver_subject":"_INBOX.mallory.x"}}"#
                .to_vec(),
        ),
        ("$SYS.REQ.SERVER.PING".to_owned(), Vec::new()),
        ("$SYS.REQ.USER.AUTH".to_owned(), Vec::new()),
        ("_INBOX.alice.x".to_owned(), Vec::new()),
        ("_R_.x".to_owned(), Vec::new()),
    ] {
        raw.publish(subject, payload.into()).await.expect("sends");
    }
    scene.settle().await;
    assert_eq!(stack.records().await, 0);
    alice.accepted(&alice.seat("real", "project:1")).await;
    // The first that is heard is what alice did.
    assert_eq!(alices.slice().await.records.len(), 1);
    assert_eq!((stack.records().await, alice.connects().await), (1, connects));
    scene.streams_are_whole(1).await;
}

#[tokio::test]
async fn an_answer_cannot_be_sent_where_it_matters() {
    let scene = Scene::set().await;
    let Scene { stack, alice, bob, raw, mallory, .. } = &scene;
    let mut alices = bob.subscribe(&["project:1"]).await;
    let connects = (alice.connects().await, bob.connects().await);
    let client_id = mallory.client_id;
    let request = encode(&SessionRequest { client_id });
    let replies = [
        stack.subjects.log(&key("project:1")).to_string(),
        stack.subjects.live(&key("project:1")).to_string(),
        stack.subjects.up(Some(&key("project:1")), &alice.user, alice.client_id).to_string(),
        stack.subjects.rpc(&alice.user, alice.client_id, RpcMethod::Session).to_string(),
        stack.subjects.outcome(&UserToken::of(&alice.user), alice.client_id).to_string(),
        stack.subjects.ctl(&UserToken::of(&alice.user)).to_string(),
        "$JS.API.STREAM.DELETE.TEST_SYNC_UP".to_owned(),
        "$JS.API.STREAM.PURGE.TEST_SYNC_LOG".to_owned(),
        "$SYS.REQ.USER.AUTH".to_owned(),
        "_INBOX.alice.guessed".to_owned(),
    ];
    let up = stack.subjects.up(Some(&key("project:9")), &mallory.user, client_id);
    for reply in replies {
        for method in [RpcMethod::Session, RpcMethod::Fetch] {
            let subject = stack.subjects.rpc(&mallory.user, client_id, method);
            raw.publish_with_reply(subject, reply.clone(), request.clone().into()).await.expect("sends");
        }
        raw.publish_with_reply("$SYS.REQ.USER.INFO", reply.clone(), "".into()).await.expect("sends");
        // The stream's acknowledgement goes there, too.
        let batch = mallory.seat(&Uuid::new_v4().to_string(), "project:9");
        raw.publish_with_reply(up.clone(), reply, encode(&batch).into()).await.expect("sends");
    }
    scene.settle().await;
    let nine = async || (stack.records().await == 10).then_some(());
    wait_for("Mallory's own uploads", PATIENCE, nine).await.expect("decided");
    alice.accepted(&alice.seat("real", "project:1")).await;
    assert_eq!(alices.slice().await.records.len(), 1);
    assert_eq!((alice.connects().await, bob.connects().await), connects);
    scene.streams_are_whole(11).await;
}

/// What NATS says to someone who speaks its protocol by hand, until it hangs up.
async fn told_to(stack: &Stack, line: &str) -> String {
    let mut stream = TcpStream::connect(stack.nats_url.trim_start_matches("nats://")).await.expect("connects");
    let hello = format!("CONNECT {{\"auth_token\":{:?},\"verbose\":false}}\r\n{line}", token("mallory", 3_600));
    stream.write_all(hello.as_bytes()).await.expect("sends");
    let mut told = Vec::new();
    // It may hang up before it has read everything.
    let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut told)).await.expect("in time");
    String::from_utf8(told).expect("text")
}

#[tokio::test]
async fn what_is_too_large_ends_its_own_connection_only() {
    let scene = Scene::set().await;
    let Scene { stack, alice, mallory, .. } = &scene;
    let up = stack.subjects.up(Some(&key("project:9")), &mallory.user, mallory.client_id);
    let huge = told_to(stack, &format!("PUB {up} 99999999\r\n")).await;
    assert!(huge.contains("Maximum Payload Violation"), "{huge}");
    let long = told_to(stack, &format!("PUB {} 1\r\nx\r\n", "x".repeat(40 << 10))).await;
    assert!(long.to_lowercase().contains("control line"), "{long}");
    alice.accepted(&alice.seat("s1", "project:1")).await;
    assert_eq!(stack.records().await, 1);
}

#[tokio::test]
async fn a_flood_of_one_keeps_nobody_else_waiting() {
    let scene = Scene::set().await;
    let Scene { stack, alice, bob, raw, mallory, .. } = &scene;
    let mut events = bob.subscribe(&["project:1"]).await;
    let up = stack.subjects.up(Some(&key("project:9")), &mallory.user, mallory.client_id);
    let rpc = stack.subjects.rpc(&mallory.user, mallory.client_id, RpcMethod::Fetch);
    let (epoch, client_id) = (mallory.session.epoch, mallory.client_id);
    let fetch = encode(&FetchRequest { client_id, epoch, cursors: Cursors::new() });
    let flooding = async {
        for number in 0..2_000 {
            raw.publish(up.clone(), vec![0xc1; 1 << 10].into()).await.expect("sends");
            let inbox = format!("_INBOX.mallory.raw.{number}");
            raw.publish_with_reply(rpc.clone(), inbox, fetch.clone().into()).await.expect("sends");
        }
        // And subscriptions as many as she likes.
        let mut subscribed = Vec::new();
        for number in 0..200 {
            subscribed.push(raw.subscribe(format!("_INBOX.mallory.raw.more.{number}")).await.expect("sends"));
        }
        raw.flush().await.expect("sends");
    };
    let working = async {
        for number in 0..10 {
            alice.accepted(&alice.seat(&number.to_string(), "project:1")).await;
            events.slice().await;
        }
    };
    let both = async { tokio::join!(flooding, working) };
    tokio::time::timeout(Duration::from_secs(60), both).await.expect("in time");
    assert_eq!(stack.records().await, 10);
}

#[tokio::test]
async fn a_nats_that_lets_anyone_in_is_not_served() {
    let nats = NatsServer::start(NatsOptions::default()).await.expect("nats-server");
    let stack = Stack::start_on(&nats, |_| {}).await;
    let status = NatsStatus::read(stack.settings.nats.as_ref().expect("set")).await;
    assert!(status.error.as_ref().is_some_and(|error| error.contains("nats-config")), "{status:?}");
    let raw = async_nats::connect(nats.url()).await.expect("anyone is let in");
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let subject = stack.subjects.rpc(&user_id("alice"), client_id, RpcMethod::Session);
    let answer = raw.request(subject, encode(&SessionRequest { client_id }).into()).await;
    assert!(matches!(&answer, Err(error) if error.kind() == RequestErrorKind::NoResponders), "{answer:?}");
}
