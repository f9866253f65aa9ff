//! What comes in that should not: answered by name, nothing written, and the server lives on.

use std::time::Duration;

use async_nats::Client;
use futures::StreamExt;
use synchrotron_core::model::ClientId;
use synchrotron_core::network::Network;
use synchrotron_core::wire::{
    self, Fault, FaultCode, Outcome, OutcomeMessage, Reply, SessionRequest, WIRE_VERSION, encode,
};
use synchrotron_nats::subjects::{RpcMethod, UserToken};
use uuid::Uuid;

use crate::stack::{Device, PATIENCE, Stack, key, user_id};

/// A device, and a plain client that speaks in its name.
struct Intruder {
    stack: Stack,
    alice: Device,
    raw: Client,
}

impl Intruder {
    async fn start() -> Self {
        let stack = Stack::start_with(|api| api.upload_bytes_max = 64 << 10).await;
        let alice = stack.device("alice", &["project:1"]).await;
        // The server's own account bounds nothing: what NATS would stop is to be refused here, too.
        let raw = stack.admin().await;
        Self { stack, alice, raw }
    }

    /// Sends bytes as an upload of alice's device; what is answered on her outcome subject.
    async fn upload(&self, payload: Vec<u8>) -> OutcomeMessage {
        let Self { stack, alice, raw } = self;
        let outcome = stack.subjects.outcome(&UserToken::of(&alice.user), alice.client_id);
        let mut outcomes = raw.subscribe(outcome).await.expect("subscribes");
        let up = stack.subjects.up(Some(&key("project:1")), &alice.user, alice.client_id);
        raw.publish(up, payload.into()).await.expect("sends");
        let told = tokio::time::timeout(PATIENCE, outcomes.next()).await.expect("in time").expect("an outcome");
        wire::decode(&told.payload, 1 << 20).expect("reads")
    }

    /// Sends bytes as a request of alice's device; the fault that is answered.
    async fn fault(&self, method: RpcMethod, payload: Vec<u8>) -> Fault {
        let subject = self.stack.subjects.rpc(&self.alice.user, self.alice.client_id, method);
        self.fault_at(subject.as_str(), payload).await
    }

    async fn fault_at(&self, subject: &str, payload: Vec<u8>) -> Fault {
        let answer = self.raw.request(subject.to_owned(), payload.into()).await;
        match wire::decode::<Reply<()>>(&answer.expect("answered").payload, 1 << 20).expect("reads") {
            Reply::Fault(fault) => fault,
            Reply::Ok(()) => panic!("served"),
        }
    }

    /// Nothing was written, and alice is still served.
    async fn lives_on(&self) {
        assert_eq!(self.stack.records().await, 0);
        self.alice.accepted(&self.alice.seat("after", "project:1")).await;
        assert_eq!(self.stack.records().await, 1);
    }
}

/// What is no message, and what it is called.
fn unreadable() -> Vec<(Vec<u8>, FaultCode)> {
    let another_version = serde_json::json!({"v": WIRE_VERSION + 1, "body": {}});
    let another_shape = serde_json::json!({"v": WIRE_VERSION, "body": {"batch_id": 7}});
    let encoded = |value| rmp_serde::to_vec_named(&value).expect("encodes");
    let whole = encode(&SessionRequest { client_id: ClientId::from_uuid(Uuid::nil()) });
    vec![
        (Vec::new(), FaultCode::Malformed),
        (b"{\"v\":1}".to_vec(), FaultCode::Malformed),
        (vec![0xff; 1_000], FaultCode::Malformed),
        (vec![0xdd, 0xff, 0xff, 0xff, 0xff], FaultCode::Malformed),
        ([vec![0x91; 10_000], vec![0xc0]].concat(), FaultCode::Malformed),
        (whole[..whole.len() / 2].to_vec(), FaultCode::Malformed),
        ([whole, vec![0]].concat(), FaultCode::Malformed),
        (encoded(another_shape), FaultCode::Malformed),
        (encoded(another_version), FaultCode::UnsupportedVersion),
    ]
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_by_name() {
    let intruder = Intruder::start().await;
    let mut uploads = unreadable();
    uploads.push((vec![0; (64 << 10) + 1], FaultCode::TooLarge));
    for (bytes, code) in uploads {
        let told = intruder.upload(bytes).await;
        assert_eq!(told.batch_id, None);
        assert!(matches!(&told.outcome, Outcome::Refused(fault) if fault.code == code), "{told:?}");
    }
    let mut requests = unreadable();
    requests.push((vec![0; (1 << 20) + 1], FaultCode::TooLarge));
    for method in RpcMethod::ALL {
        for (bytes, code) in &requests {
            assert_eq!(intruder.fault(method, bytes.clone()).await.code, *code);
        }
    }
    intruder.lives_on().await;
}

#[tokio::test]
async fn another_device_than_the_subjects_is_refused() {
    let intruder = Intruder::start().await;
    let Intruder { stack, alice, raw } = &intruder;
    // Mallory uses her own subjects with alice's device in the message.
    let mallory = user_id("mallory");
    stack.allow("mallory", "project:1").await;
    let own = ClientId::from_uuid(Uuid::new_v4());
    let request = encode(&SessionRequest { client_id: alice.client_id });
    let subject = stack.subjects.rpc(&mallory, own, RpcMethod::Session);
    assert_eq!(intruder.fault_at(&subject, request.clone()).await.code, FaultCode::ForeignClient);
    let subject = stack.subjects.rpc(&mallory, alice.client_id, RpcMethod::Session);
    assert_eq!(intruder.fault_at(&subject, request).await.code, FaultCode::ForeignClient);

    let batch = alice.seat("forged", "project:1");
    for client_id in [own, alice.client_id] {
        let outcome = stack.subjects.outcome(&UserToken::of(&mallory), client_id);
        let mut outcomes = raw.subscribe(outcome).await.expect("subscribes");
        let up = stack.subjects.up(Some(&key("project:1")), &mallory, client_id);
        raw.publish(up, encode(&batch).into()).await.expect("sends");
        let told = tokio::time::timeout(PATIENCE, outcomes.next()).await.expect("in time").expect("an outcome");
        let told: OutcomeMessage = wire::decode(&told.payload, 1 << 20).expect("reads");
        assert!(matches!(&told.outcome, Outcome::Refused(fault) if fault.code == FaultCode::ForeignClient), "{told:?}");
    }
    intruder.lives_on().await;
}

#[tokio::test]
async fn subjects_that_are_none_cost_nothing() {
    let intruder = Intruder::start().await;
    let prefix = intruder.stack.subjects.prefix();
    for rest in ["up.x", "up.=41.alice.x", "up.a.b.c.d.e", "up.>", "up.*.alice.x"] {
        let sent = intruder.raw.publish(format!("{prefix}.{rest}"), "x".into()).await;
        sent.expect("sends");
    }
    let nil = Uuid::nil();
    for rest in ["rpc.alice.x.session", "rpc.=41.x.fetch", &format!("rpc.alice.{nil}.drop_everything")] {
        let fault = intruder.fault_at(&format!("{prefix}.{rest}"), Vec::new()).await;
        assert_eq!(fault.code, FaultCode::Malformed);
    }
    intruder.lives_on().await;
}

#[tokio::test]
async fn an_answer_cannot_be_made_a_slice() {
    let intruder = Intruder::start().await;
    let Intruder { stack, alice, raw } = &intruder;
    let mut live = raw.subscribe(stack.subjects.all_live()).await.expect("subscribes");
    let subject = stack.subjects.rpc(&alice.user, alice.client_id, RpcMethod::Session);
    let request = encode(&SessionRequest { client_id: alice.client_id });
    let log = stack.subjects.log(&key("project:1"));
    raw.publish_with_reply(subject, log, request.into()).await.expect("sends");
    alice.network.session(&SessionRequest { client_id: alice.client_id }).await.expect("served meanwhile");
    intruder.lives_on().await;
    // The first that is heard is what alice did.
    let first = tokio::time::timeout(Duration::from_secs(10), live.next()).await.expect("in time").expect("a slice");
    let slice: wire::Slice = wire::decode(&first.payload, 1 << 20).expect("a slice");
    assert_eq!(slice.records.len(), 1);
}
