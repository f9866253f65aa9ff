//! The issuer's keys change, and the issuer goes away.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use synchrotron_core::wire::FaultCode;
use synchrotron_server::auth::{JwksLimits, TokenVerifier};
use synchrotron_testkit::wait_for;

use crate::issuer::{Answer, KeyServer, SigningKey, claims_of, key_set, quick};

const PATIENCE: Duration = Duration::from_secs(20);

async fn code(verifier: &TokenVerifier, token: &str) -> Option<FaultCode> {
    verifier.verify(token).await.err().map(|fault| fault.code)
}

/// Waits until the token is judged like that; `None` is proof.
async fn becomes(verifier: &TokenVerifier, token: &str, expected: Option<FaultCode>) {
    let judged = async || (code(verifier, token).await == expected).then_some(());
    wait_for("another judgement", PATIENCE, judged).await.expect("in time");
}

#[tokio::test]
async fn u12_a_new_key_is_fetched_for_the_first_token_that_names_it() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::ed25519("new"));
    let server = KeyServer::publishing(&[&old]).await;
    let verifier = server.verifier(quick());
    assert_eq!(code(&verifier, &old.token()).await, None);
    assert_eq!(server.asked(), 1);
    server.answer(key_set(&[&old, &new]));
    // Keys were fetched just now: they are not again until a pause is over.
    becomes(&verifier, &new.token(), None).await;
    assert_eq!(code(&verifier, &old.token()).await, None);
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn u12_a_key_that_is_taken_back_stops_working_with_the_next_refresh() {
    let (old, new) = (SigningKey::p256("old"), SigningKey::p256("new"));
    let server = KeyServer::publishing(&[&old]).await;
    let verifier = server.verifier(JwksLimits { refresh_every: Duration::from_millis(200), ..quick() });
    assert_eq!(code(&verifier, &old.token()).await, None);
    server.answer(key_set(&[&new]));
    becomes(&verifier, &old.token(), Some(FaultCode::Unauthenticated)).await;
    assert_eq!(code(&verifier, &new.token()).await, None);
    server.answer(key_set(&[]));
    becomes(&verifier, &new.token(), Some(FaultCode::Unauthenticated)).await;
}

/// The id stays and the key is another: the old key's tokens end, and the new key's begin with the first of them.
#[tokio::test]
async fn u12_an_id_that_is_used_again_is_of_the_new_key_only() {
    let (old, new) = (SigningKey::p256("1"), SigningKey::p256("1"));
    let server = KeyServer::publishing(&[&old]).await;
    let verifier = server.verifier(quick());
    assert_eq!(code(&verifier, &old.token()).await, None);
    server.answer(key_set(&[&new]));
    becomes(&verifier, &new.token(), None).await;
    assert_eq!(code(&verifier, &old.token()).await, Some(FaultCode::Unauthenticated));
}

#[tokio::test]
async fn u12_tokens_of_unknown_keys_cost_one_fetch_however_many_come() {
    let known = SigningKey::p256("known");
    let server = KeyServer::publishing(&[&known]).await;
    let pause = Duration::from_millis(500);
    let verifier = server.verifier(JwksLimits { pause, waiting_max: 1_000, ..quick() });
    assert_eq!(code(&verifier, &known.token()).await, None);
    let strangers: Vec<_> = (0..50).map(|n| SigningKey::ed25519(&format!("stranger {n}")).token()).collect();
    let asked = server.asked();
    // All at once, until a pause is over and one of them is the first.
    let all = async || {
        let judged = futures::future::join_all(strangers.iter().map(|token| code(&verifier, token))).await;
        assert!(judged.iter().all(|code| *code == Some(FaultCode::Unauthenticated)), "{judged:?}");
        (server.asked() > asked).then_some(())
    };
    wait_for("a fetch", PATIENCE, all).await.expect("in time");
    assert_eq!(server.asked() - asked, 1, "for all of them");
    let begun = tokio::time::Instant::now();
    for token in &strangers {
        assert_eq!(code(&verifier, token).await, Some(FaultCode::Unauthenticated));
        assert_eq!(code(&verifier, &known.token()).await, None, "nobody else notices");
    }
    let pauses = begun.elapsed().div_duration_f64(pause);
    let asked = server.asked() - asked - 1;
    assert!(asked as f64 <= pauses + 1.0, "{asked} fetches in {pauses} pauses");
}

#[tokio::test]
async fn u12_only_so_many_requests_wait_for_keys() {
    let server = KeyServer::start(Answer::Never).await;
    let verifier = server.verifier(JwksLimits { waiting_max: 2, fetch_within: Duration::from_secs(2), ..quick() });
    let token = SigningKey::p256("1").token();
    let (first, second) = (verifier.verify(&token), verifier.verify(&token));
    let third = async {
        let begun = tokio::time::Instant::now();
        assert_eq!(code(&verifier, &token).await, Some(FaultCode::Unavailable));
        begun.elapsed()
    };
    let (first, second, waited) = futures::join!(first, second, third);
    assert!(first.is_err() && second.is_err());
    assert!(waited < Duration::from_secs(1), "{waited:?}");
}

#[tokio::test]
async fn u12_while_keys_cannot_be_had_nobody_is_refused_and_nobody_served() {
    let key = SigningKey::p256("1");
    let server = KeyServer::start(Answer::Status(StatusCode::SERVICE_UNAVAILABLE)).await;
    let verifier = server.verifier(quick());
    assert_eq!(code(&verifier, &key.token()).await, Some(FaultCode::Unavailable));
    server.answer(key_set(&[&key]));
    becomes(&verifier, &key.token(), None).await;
    let expired = key.sign(&json!({ "sub": "alice", "exp": 1 }));
    assert_eq!(code(&verifier, &expired).await, Some(FaultCode::Unauthenticated));
}

#[tokio::test]
async fn u12_an_outage_leaves_the_last_good_keys_for_a_while_and_no_longer() {
    let (key, stranger) = (SigningKey::p256("1"), SigningKey::p256("2"));
    let server = KeyServer::publishing(&[&key]).await;
    let limits = JwksLimits { stale_max: Duration::from_secs(2), refresh_every: Duration::from_millis(100), ..quick() };
    let verifier = server.verifier(limits);
    assert_eq!(code(&verifier, &key.token()).await, None);
    server.answer(Answer::Never);
    becomes(&verifier, &stranger.token(), Some(FaultCode::Unavailable)).await;
    assert_eq!(code(&verifier, &key.token()).await, None, "the last good keys still do");
    becomes(&verifier, &key.token(), Some(FaultCode::Unavailable)).await;
    server.answer(key_set(&[&key]));
    becomes(&verifier, &key.token(), None).await;
}

/// Whatever the key server says that is no key set: it takes nothing away, and adds nothing.
#[tokio::test]
async fn u12_an_answer_that_is_no_key_set_changes_nothing() {
    let (key, stranger) = (SigningKey::p256("1"), SigningKey::p256("2"));
    let elsewhere = KeyServer::publishing(&[&stranger]).await;
    let padded = json!({ "keys": [stranger.published()], "padding": "x".repeat(quick().bytes_max) });
    let many = json!({ "keys": vec![stranger.published(); quick().keys_max + 1] });
    let bad = [
        Answer::Body("<html>".into()),
        Answer::Body(String::new()),
        Answer::Body("{}".into()),
        Answer::Body("[".repeat(10_000)),
        Answer::Body(json!({ "keys": "none" }).to_string()),
        Answer::Body(padded.to_string()),
        Answer::Body(many.to_string()),
        Answer::Status(StatusCode::NOT_FOUND),
        Answer::Redirect(elsewhere.url.to_string()),
        Answer::Never,
    ];
    for (index, answer) in bad.into_iter().enumerate() {
        let server = KeyServer::publishing(&[&key]).await;
        let verifier = server.verifier(quick());
        assert_eq!(code(&verifier, &key.token()).await, None);
        server.answer(answer.clone());
        becomes(&verifier, &stranger.token(), Some(FaultCode::Unavailable)).await;
        assert_eq!(code(&verifier, &key.token()).await, None, "answer {index}");
        let at_start = KeyServer::start(answer).await.verifier(quick());
        assert_eq!(code(&at_start, &stranger.token()).await, Some(FaultCode::Unavailable), "answer {index} at start");
    }
    assert_eq!(elsewhere.asked(), 0, "a redirect is not followed");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_not_the_others_fault() {
    let key = SigningKey::p256("1");
    let strange = [json!({ "kty": "EC" }), json!(7), json!({ "kty": "quantum", "kid": 1 }), json!(null)];
    let keys: Vec<_> = strange.into_iter().chain([key.published()]).collect();
    let server = KeyServer::start(Answer::Body(json!({ "keys": keys }).to_string())).await;
    let proven = server.verifier(quick()).verify(&key.sign(&claims_of("bob"))).await.expect("valid");
    assert_eq!(proven.user_id.as_str(), "bob");
}
