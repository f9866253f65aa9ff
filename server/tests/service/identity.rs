//! Who says what: devices, tokens, histories, clocks.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use synchrotron_core::model::{BatchId, Epoch};
use synchrotron_core::wire::{FaultCode, FetchRequest, Outcome, SessionRequest};
use synchrotron_server::auth::TokenVerifier;
use uuid::Uuid;

use crate::fixture::{Theatre, principal, seat};

const SECRET: &[u8] = b"a secret of these tests";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

fn token(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
    jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).expect("signs")
}

#[test]
fn a_good_token_proves_its_user() {
    let expires = now() + 60;
    let proven = TokenVerifier::hs256(SECRET)
        .verify(&token(Algorithm::HS256, SECRET, &json!({ "sub": "alice", "exp": expires })))
        .expect("valid");
    assert_eq!((proven.user_id.as_str(), proven.expires_at), ("alice", i64::try_from(expires).ok()));
}

#[test]
fn a_bad_token_is_named_for_what_it_is() {
    let later = now() + 60;
    let good = json!({ "sub": "alice", "exp": later });
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    let cases = [
        (token(Algorithm::HS256, SECRET, &json!({ "sub": "alice", "exp": now() - 3600 })), "expired"),
        (token(Algorithm::HS256, b"another secret", &good), "bad signature"),
        (token(Algorithm::HS512, SECRET, &good), "algorithm is not allowed"),
        (none.to_owned(), "algorithm is not allowed"),
        (token(Algorithm::HS256, SECRET, &json!({ "exp": later })), "no sub"),
        (token(Algorithm::HS256, SECRET, &json!({ "sub": "alice" })), "no exp"),
        (token(Algorithm::HS256, SECRET, &json!({ "sub": "", "exp": later })), "no user id"),
        (token(Algorithm::HS256, SECRET, &json!({ "sub": "alice", "exp": later, "nbf": later })), "not valid yet"),
        ("no token at all".to_owned(), "malformed"),
        (String::new(), "malformed"),
    ];
    for (token, fact) in cases {
        let fault = TokenVerifier::hs256(SECRET).with_leeway_seconds(5).verify(&token).expect_err(fact);
        assert_eq!(fault.code, FaultCode::Unauthenticated);
        assert!(fault.message.contains(fact), "{fact}: {}", fault.message);
    }
}

#[test]
fn issuer_and_audience_are_checked_when_asked_for() {
    let verifier = TokenVerifier::hs256(SECRET).with_issuer("us").with_audience("sync");
    let claims = |iss: &str, aud: &str| json!({ "sub": "alice", "exp": now() + 60, "iss": iss, "aud": aud });
    let verify = |claims: &Value| verifier.verify(&token(Algorithm::HS256, SECRET, claims));
    assert!(verify(&claims("us", "sync")).is_ok());
    assert!(verify(&claims("them", "sync")).expect_err("foreign").message.contains("another issuer"));
    assert!(verify(&claims("us", "mail")).expect_err("foreign").message.contains("another audience"));
    let fault = verify(&json!({ "sub": "alice", "exp": now() + 60, "aud": "sync" })).expect_err("unsaid");
    assert!(fault.message.contains("no iss"), "{}", fault.message);
    assert!(!format!("{verifier:?}").contains("secret of"));
}

#[tokio::test]
async fn a_device_belongs_to_its_first_user() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let bob = principal("bob");
    let outcome = theatre.service.upload(&bob, batch.clone()).await;
    assert!(matches!(&outcome, Outcome::Refused(fault) if fault.code == FaultCode::ForeignClient), "{outcome:?}");
    let session = SessionRequest { client_id: alice.client_id };
    assert_eq!(theatre.service.session(&bob, session).await.expect_err("foreign").code, FaultCode::ForeignClient);
    let fetch = FetchRequest { client_id: alice.client_id, epoch: batch.epoch, cursors: alice.cursors.clone() };
    assert_eq!(theatre.service.fetch(&bob, fetch).await.expect_err("foreign").code, FaultCode::ForeignClient);
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn another_history_is_refused() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let mut batch = alice.batch(vec![alice.action(10, vec![seat("A1")])]).await;
    let current = batch.epoch;
    batch.epoch = Epoch::from_uuid(Uuid::nil());
    assert_eq!(alice.send(&batch).await, Outcome::EpochChanged { current });
    let fetch = FetchRequest { client_id: alice.client_id, epoch: batch.epoch, cursors: alice.cursors.clone() };
    let fault = theatre.service.fetch(&alice.principal, fetch).await.expect_err("another history");
    assert_eq!(fault.code, FaultCode::EpochChanged);
    theatre.assert_untouched().await;
}

#[tokio::test]
async fn a_clock_too_far_ahead_is_sent_back() {
    let theatre = Theatre::open().await;
    let alice = theatre.device("alice");
    let server_time_ms = alice.session().await.server_time_ms;
    let outcome = alice.upload(vec![alice.action(server_time_ms + 120_000, vec![seat("A1")])]).await;
    assert!(matches!(outcome, Outcome::ClockAhead { max_ahead_ms: 60_000, .. }), "{outcome:?}");
    theatre.assert_untouched().await;
    let mut batch = alice.batch(vec![alice.action(server_time_ms + 30_000, vec![seat("A1")])]).await;
    batch.batch_id = BatchId::from_uuid(Uuid::nil());
    assert!(matches!(alice.send(&batch).await, Outcome::Accepted { .. }));
}
