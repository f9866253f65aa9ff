//! A token is asked for when it is needed, and once more when it is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use synchrotron_core::model::{ClientId, Cursors};
use synchrotron_core::network::{Network, NetworkError, TokenSource};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome, SessionRequest};
use synchrotron_nats::{NatsNetwork, NatsSettings};
use synchrotron_testkit::wait_for;
use uuid::Uuid;

use crate::stack::{PATIENCE, Stack, token, user_id};

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
    let network = NatsNetwork::connect(settings, user_id("alice"), client_id, tokens).await;
    let mut connected = network.connected();
    let connecting = tokio::time::timeout(PATIENCE, connected.wait_for(|connected| *connected));
    connecting.await.expect("in time").expect("the network lives");
    network
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let (old, new) = (token("alice", -3_600), token("alice", 3_600));
    let request = FetchRequest { client_id: alice.client_id, epoch: alice.session.epoch, cursors: Cursors::new() };

    let tokens = OneByOne::new(vec![old.clone(), new.clone()]);
    let network = connect(&stack, alice.client_id, tokens.clone()).await;
    network.fetch(&request).await.expect("served with the second token");
    network.fetch(&request).await.expect("served with the same");
    assert_eq!(tokens.asked(), 2);

    let tokens = OneByOne::new(vec![old.clone(), new]);
    let network = connect(&stack, alice.client_id, tokens.clone()).await;
    let outcome = network.upload(&alice.seat("s1", "project:1")).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Accepted { .. }), "{outcome:?}");
    assert_eq!(tokens.asked(), 2);

    let tokens = OneByOne::new(vec![old]);
    let network = connect(&stack, alice.client_id, tokens.clone()).await;
    let outcome = network.upload(&alice.seat("s2", "project:1")).await.expect("an outcome");
    assert!(matches!(outcome, Outcome::Unauthenticated { .. }), "{outcome:?}");
    let fetched = network.fetch(&request).await;
    assert!(matches!(&fetched, Err(NetworkError::Fault(fault)) if fault.code == FaultCode::Unauthenticated));
    assert_eq!(tokens.asked(), 4);
    assert_eq!(stack.records().await, 1);
}

#[tokio::test]
async fn without_a_token_nobody_is_asked() {
    let stack = Stack::start().await;
    let client_id = ClientId::from_uuid(Uuid::new_v4());
    let network = connect(&stack, client_id, OneByOne::new(Vec::new())).await;
    let refused = network.session(&SessionRequest { client_id }).await;
    assert!(matches!(&refused, Err(NetworkError::Token(reason)) if reason == "signed out"), "{refused:?}");
}

#[tokio::test]
async fn without_a_server_calls_fail_at_once() {
    let stack = Stack::start().await;
    let alice = stack.device("alice", &["project:1"]).await;
    let Stack { server, .. } = stack;
    server.shutdown().await;
    let request = SessionRequest { client_id: alice.client_id };
    // A call that the server's end caught half-way is answered by nobody and times out; the next one is told at once.
    let refused = wait_for("nobody to listen", PATIENCE, async || match alice.network.session(&request).await {
        Err(NetworkError::Unavailable { .. }) => Some(()),
        Ok(_) | Err(_) => None,
    });
    refused.await.expect("refused");
}
