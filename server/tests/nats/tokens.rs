//! A token proves who connects; it is asked for with each connection, and the connection ends with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use synchrotron_core::model::ClientId;
use synchrotron_core::network::{Carrier, Network, NetworkError, StaticToken, TokenSource};
use synchrotron_core::wire::{Outcome, SessionRequest};
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::stack::{PATIENCE, Stack, nats, prefix, signed, token, user_id};

/// Gives these tokens, one after the other, and then always the last.
#[derive(Debug)]
struct OneByOne {
    tokens: Vec<String>,
    asked: AtomicUsize,
}

impl OneByOne {
    fn new(tokens: Vec<String>) -> Arc<Self> {
        Arc::new(Self { tokens, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl TokenSource for OneByOne {
    async fn token(&self) -> Result<String, NetworkError> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let token = self.tokens.get(asked).or(self.tokens.last());
        token.cloned().ok_or_else(|| NetworkError::Token("signed out".to_owned()))
    }
}

async fn connect(stack: &Stack, client_id: ClientId, tokens: Arc<OneByOne>) -> NatsNetwork {
    let settings = NatsSettings::new(&stack.nats_url).expect("a URL").with_prefix(stack.subjects.prefix().clone());
    NatsNetwork::connect(settings, user_id("alice"), client_id, tokens).await
}

#[tokio::test]
async fn a_refused_token_is_replaced_by_the_next_attempt() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let (old, new) = (token("alice", -3_600), token("alice", 3_600));
    let tokens = OneByOne::new(vec![old, signed("alice", 3_600, b"another secret altogether"), new]);
    let network = connect(&stack, alice.client_id, tokens.clone()).await;
    let mut connected = network.connected();
    tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected)).await.expect("in time").expect("lives");
    // Many calls at once ask for no token of their own.
    let request = SessionRequest { client_id: alice.client_id };
    let calls = futures::future::join_all((0..20).map(|_| network.session(&request)));
    assert!(calls.await.iter().all(Result::is_ok));
    assert_eq!(tokens.asked(), 3);
}

#[tokio::test]
async fn u12_nobody_is_let_in_without_a_token_that_holds() {
    let stack = Stack::start().await;
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.".to_owned();
    let expired = token("alice", -3_600);
    for refused in ["".to_owned(), "not.a.token".to_owned(), none, expired, signed("alice", 60, b"another secret!!")] {
        let network = connect(&stack, client_id, OneByOne::new(vec![refused.clone()])).await;
        let turned_away = async || match network.session(&SessionRequest { client_id }).await {
            Err(error) if error.is_unauthenticated() => Some(()),
            Err(NetworkError::Unavailable { .. }) => None,
            served => panic!("{refused}: {served:?}"),
        };
        wait_for("a refusal", PATIENCE, turned_away).await.expect("refused");
        assert_eq!(network.carrier(), Carrier::Offline);
    }
    assert!(async_nats::connect(&stack.nats_url).await.is_err(), "anyone is let in");
}

#[tokio::test]
async fn a_token_that_is_about_to_expire_is_replaced_between_calls() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let tokens = OneByOne::new(vec![token("alice", 3), token("alice", 3_600)]);
    let network = connect(&stack, alice.client_id, tokens.clone()).await;
    let mut connected = network.connected();
    tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected)).await.expect("in time").expect("lives");
    let renewed = wait_for("the next token", PATIENCE, async || {
        // Whenever it is renewed, no call fails.
        network.session(&SessionRequest { client_id: alice.client_id }).await.expect("served");
        (tokens.asked() == 2).then_some(())
    });
    renewed.await.expect("renewed");
    let outcome = network.upload(&alice.seat("s1", "project:1")).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
}

#[tokio::test]
async fn rights_end_with_the_token() {
    // What is verified with a leeway holds as long.
    let stack = Stack::start().await;
    let left = 2;
    let options = async_nats::ConnectOptions::with_token(token("alice", left - 30));
    let raw = options.connect(&stack.nats_url).await.expect("it holds still");
    let ended = async || (raw.connection_state() != async_nats::connection::State::Connected).then_some(());
    wait_for("the end", PATIENCE, ended).await.expect("NATS ends the connection");
}

#[tokio::test]
async fn a_token_of_another_user_is_good_for_nothing() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let network = connect(&stack, alice.client_id, OneByOne::new(vec![token("mallory", 3_600)])).await;
    let mut connected = network.connected();
    tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected)).await.expect("in time").expect("lives");
    let session = network.session(&SessionRequest { client_id: alice.client_id }).await;
    assert!(matches!(session, Err(NetworkError::NotPermitted { .. })), "{session:?}");
    let upload = network.upload(&alice.seat("s1", "project:1")).await;
    assert!(matches!(upload, Err(NetworkError::NotPermitted { .. })), "{upload:?}");
    assert_eq!(stack.records().await, 0);
}

#[tokio::test]
async fn without_a_token_nobody_is_asked() {
    let stack = Stack::start().await;
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let network = connect(&stack, client_id, OneByOne::new(Vec::new())).await;
    let signed_out = async || match network.session(&SessionRequest { client_id }).await {
        Err(NetworkError::Token(reason)) => Some(reason),
        _ => None,
    };
    assert_eq!(wait_for("the reason", PATIENCE, signed_out).await.expect("told"), "signed out");
}

#[tokio::test]
async fn without_a_server_calls_fail_at_once() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let Stack { server, nats: _nats, .. } = stack;
    server.shutdown().await;
    let request = SessionRequest { client_id: alice.client_id };
    // A call that the server's end caught half-way is answered by nobody and times out; the next one is told at once.
    let refused = wait_for("nobody to listen", PATIENCE, async || match alice.network.session(&request).await {
        Err(NetworkError::Unavailable { .. }) => Some(()),
        Ok(_) | Err(_) => None,
    });
    refused.await.expect("refused");
}

/// NATS pings also those who wait to be let in, and a client may take that for an answer.
#[tokio::test]
async fn whoever_waits_to_be_let_in_is_not_connected() {
    let nats = nats().await;
    // Nobody says who may connect.
    let settings = NatsSettings::new(nats.url()).expect("a URL").with_prefix(prefix());
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let token = Arc::new(StaticToken::new(token("alice", 3_600)));
    let network = NatsNetwork::connect(settings, user_id("alice"), client_id, token).await;
    let mut connected = network.connected();
    let refused = async || match network.session(&SessionRequest { client_id }).await {
        Err(NetworkError::Unauthenticated { carrier: Carrier::Nats }) => Some(()),
        _ => None,
    };
    tokio::select! {
        refused = wait_for("a refusal", PATIENCE, refused) => refused.expect("refused"),
        _ = connected.changed() => panic!("connected: {}", *connected.borrow()),
    }
    assert_eq!(network.carrier(), Carrier::Offline);
}
